"""A model as a folder that anybody can open without running its author's code: what it holds, and how it is read."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, Signature, batch_from_rows, located
from mlinfer.hosts import _skops_files
from mlinfer.hosts._compiling import SKLEARN, described
from mlinfer.hosts._feeding import Feed
from mlinfer.hosts._forms import Form
from mlinfer.hosts._manifest_shape import misfit
from mlinfer.hosts._model_files import check_digest, read
from mlinfer.hosts._pictures import Pictures
from mlinfer.hosts._scikit_learn import scikit_learn

FORMAT = 2
MANIFEST = "manifest.json"
OFTEN = 10  # packages that follow each other so quickly that reading one fails are no accident
MODEL = "model.skops"
FORM = "compiled.arrays"
LARGEST_MANIFEST = 2**22
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SEAL = "sealed"
UNSEALED = 64 * "0"
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Package:
    """What a package says: the model, what it reads and answers, and how it is asked.

    With `pictures` the signature is that of the model behind them, which takes their numbers.

    Opened, it holds the compiled `form` or the `estimator`, whichever is to run; `runs` says which, and why.
    """

    estimator: Any
    signature: Signature
    methods: tuple[str, ...]
    expand: bool
    feed: Feed
    example: pa.RecordBatch
    form: Form | None = None
    runs: str = SKLEARN
    pictures: Pictures | None = None


def open_package(
    path: Path, trusted: Sequence[str], sha256: str | None, compiled_for: Sequence[str] | None
) -> Package:
    """Read a package; every digest is compared before a file is looked into.

    Its compiled form is opened if there is one for the methods `compiled_for` (none: the package's own; None: no form is
    wanted), else its estimator. Raises ConfigError: it is damaged, not the one that was meant, or its estimator was made
    for another scikit-learn.
    """
    facts, contents = read_package(path, sha256)
    try:
        package = _package(facts)
        wanted = package.methods if compiled_for is not None and not compiled_for else compiled_for
        form, runs = _form(facts, contents, wanted, str(path))
    except DAMAGE as error:
        raise ConfigError(_damaged(path)) from error
    if form is None:
        _check_version(facts, path)
        estimator = _skops_files.load(contents[MODEL], trusted, str(path / MODEL))
        return replace(package, estimator=estimator, runs=runs)
    return replace(package, form=form, runs=runs)


def manifest(path: str | os.PathLike[str], sha256: str | None = None) -> dict[str, Any]:
    """What a package says of itself: its fields, its form and the proof, its files and their SHA-256.

    Every file's digest is compared first; `sha256` is that of the manifest. No model is loaded. Raises ConfigError: this is
    no package, or it is damaged.
    """
    path = located(path)
    if not path.is_dir():
        msg = f"{path}: wanted a package (a folder that mlinfer.save wrote), found {'a file' if path.exists() else 'nothing'}"
        raise ConfigError(msg)
    facts, _ = read_package(path, sha256)
    return facts


def read_package(path: Path, sha256: str | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest of a package and its files, every digest compared. Raises ConfigError: they are not what it names."""
    for _ in range(OFTEN):
        try:
            return _read_package(path, sha256)
        except Replaced:
            continue
    return _read_package(path, sha256)


class Replaced(ConfigError):  # noqa: N818 - the name of what happened
    """Another package has taken the place of this one while it was read."""


def _check_there(folder: int, path: Path) -> None:
    """Raises ConfigError: this is another folder than that of a package."""
    try:
        os.stat(MANIFEST, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError as error:
        msg = f"{path}: wanted the folder of a model that mlinfer.save has written, found no {MANIFEST} in it; name another folder"
        raise ConfigError(msg) from error


def _read_package(path: Path, sha256: str | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        msg = (
            f"{path}: wanted a package that this user may read, found {error.strerror}; only its owner may, as mlinfer.save "
            "wrote it: give it to the user who runs this (chown -R, in a Containerfile COPY --chown=)"
        )
        raise ConfigError(msg) from error
    try:
        _check_there(folder, path)
        manifest = read(MANIFEST, within=folder, folder=path, most=LARGEST_MANIFEST)
        if sha256 is not None:
            check_digest(manifest, sha256, f"{path}/{MANIFEST}")
        facts = _facts(manifest, path)
        contents = {name: read(name, within=folder, folder=path) for name in facts["files"]}
    except ConfigError as error:
        if path.exists() and not os.path.samestat(os.fstat(folder), path.stat()):
            raise Replaced(str(error)) from error
        raise
    finally:
        os.close(folder)
    for name, content in contents.items():
        check_digest(content, facts["files"][name], f"{path}/{name}")
    return facts, contents


def _form(
    facts: Mapping[str, Any], contents: Mapping[str, bytes], methods: Sequence[str] | None, where: str
) -> tuple[Form | None, str]:
    """The compiled form, if it is to run, and what runs then, and why."""
    compiled = facts.get("compiled")
    if methods is None:
        return None, f"{SKLEARN}: compile='never'"
    if not compiled or compiled["form"] is None:
        return None, described(compiled)
    absent = [method for method in methods if method not in compiled["methods"]]
    if absent:
        return None, f"{SKLEARN}: the compiled form does not answer {absent[0]!r}"
    return Form.load(contents[FORM], f"{where}/{FORM}"), described(compiled)


def _package(facts: Mapping[str, Any]) -> Package:
    inputs, outputs = (_schema(facts["signature"][role]) for role in ("inputs", "outputs"))
    signature = Signature(inputs, outputs, facts["model_id"], facts["version"], facts["digest"])
    example = record_batch(facts["example"], inputs)
    feed = Feed.from_json(facts["feed"])
    pictures = None if facts.get("pictures") is None else Pictures(**facts["pictures"])
    methods, expand = tuple(facts["method"]), bool(facts["expand"])
    return Package(None, signature, methods, expand, feed, example, pictures=pictures)


def _facts(manifest: bytes, path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(manifest)
        version, files = facts["format"], facts["files"]
        sound = MODEL in files and all(
            NAME.fullmatch(name) and isinstance(files[name], str) for name in files
        )
    except DAMAGE as error:
        raise ConfigError(_damaged(path)) from error
    if version != FORMAT:
        msg = f"{path}: wanted a package of format {FORMAT}, found {version!r}; install the mlinfer that wrote it, or save it again"
        raise ConfigError(msg)
    if not sound or not _is_sealed(manifest, facts.get(SEAL)):
        raise ConfigError(_damaged(path))
    if wrong := misfit(facts):
        msg = f"{path}/{MANIFEST}: {wrong}; it is damaged or foreign: save the model again, or fetch the package anew"
        raise ConfigError(msg)
    return facts


def _check_version(facts: Mapping[str, Any], path: Path) -> None:
    """A compiled form answers the same whatever is installed; an estimator may not."""
    here = scikit_learn().__version__
    fitted = facts["libraries"]["scikit-learn"]
    if fitted.split(".")[:2] != here.split(".")[:2]:
        raise ConfigError(_skops_files.other_version(str(path), fitted, here))


def sealed(facts: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest, which end with the SHA-256 of themselves (64 zeros in its place)."""
    text = json.dumps({**facts, SEAL: UNSEALED}, indent=1, allow_nan=False, default=str)
    start = text.rindex(UNSEALED)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[:start]}{digest}{text[start + len(UNSEALED) :]}".encode()


def _is_sealed(manifest: bytes, seal: object) -> bool:
    if not isinstance(seal, str) or len(seal) != len(UNSEALED) or not seal.isascii():
        return False
    start = manifest.rfind(seal.encode())
    text = manifest[:start] + UNSEALED.encode() + manifest[start + len(UNSEALED) :]
    return start >= 0 and hashlib.sha256(text).hexdigest() == seal


def record_batch(record: Mapping[str, Any], inputs: pa.Schema) -> pa.RecordBatch:
    """The record of a manifest, twice: an estimator that answers columns cannot be mistaken for one that answers records."""
    batch, _, bad = batch_from_rows([dict(record)] * 2, inputs)
    if bad:
        raise ValueError(bad[0].message)
    columns = [_as(field.type, column) for column, field in zip(batch.columns, inputs, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=inputs)


def _as(kind: pa.DataType, column: pa.Array) -> pa.Array:
    """What `cast` gives, without pyarrow.compute for the usual kinds: importing that takes longer than opening a package."""
    if column.type == kind:
        return column
    if pt.is_fixed_size_list(kind) and pt.is_list(column.type) and not column.null_count:
        values = column.values  # of equal records
        if values.type == kind.value_type and len(values) == len(column) * kind.list_size:
            return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return column.cast(kind)


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text, validate=True)))


def _damaged(path: Path) -> str:
    return f"{path}/{MANIFEST}: wanted the manifest of a package that mlinfer.save wrote, found something damaged or foreign"
