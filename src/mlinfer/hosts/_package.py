"""A model as a folder that anybody can open without running its author's code."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Signature, batch_from_rows, durable
from mlinfer.hosts import _skops_files
from mlinfer.hosts._feeding import Feed
from mlinfer.hosts._model_files import check_digest, read

FORMAT = 1
MANIFEST = "manifest.json"
MODEL = "model.skops"
LARGEST_MANIFEST = 2**22
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Package:
    """What a package says: the model, what it reads and answers, and how it is asked."""

    estimator: Any
    signature: Signature
    methods: tuple[str, ...]
    expand: bool
    feed: Feed
    example: pa.RecordBatch


def write(path: Path, package: Package, content: bytes) -> None:
    """Write a package; `content` are the bytes of its skops file. It is there whole, or not at all.

    Raises ConfigError: there is something at that path, or the name is not one.
    """
    if not NAME.fullmatch(package.signature.model_id):
        msg = f"name: wanted letters, digits, '.', '_' and '-' (at most 128), found {package.signature.model_id!r}"
        raise ConfigError(msg)
    check_free(path)
    durable.make_folder(path.parent)
    scratch = durable.temporary(path)
    try:
        durable.make_folder(scratch)
        for name, data in ((MODEL, content), (MANIFEST, _manifest(package, content))):
            with durable.create(scratch / name) as file:
                file.write(data)
        durable.flush_folder(scratch)
        check_free(path)
        durable.rename(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def check_free(path: Path) -> None:
    """Raises ConfigError: there is something at that path."""
    if os.path.lexists(path):
        msg = f"{path}: wanted a new path for the package, found something there; remove it or choose another name"
        raise ConfigError(msg)


def open_package(path: Path, trusted: Sequence[str], sha256: str | None) -> Package:
    """Read a package; every digest is compared before a file is looked into.

    Raises ConfigError: it is damaged, not the one that was meant, or made for another scikit-learn.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        manifest = read(MANIFEST, within=folder, most=LARGEST_MANIFEST)
        if sha256 is not None:
            check_digest(manifest, sha256, f"{path}/{MANIFEST}")
        facts = _facts(manifest, path)
        contents = {name: read(name, within=folder) for name in facts["files"]}
    finally:
        os.close(folder)
    for name, content in contents.items():
        check_digest(content, facts["files"][name], f"{path}/{name}")
    estimator = _skops_files.load(contents[MODEL], trusted, str(path / MODEL))
    try:
        return _package(estimator, facts)
    except DAMAGE as error:
        raise ConfigError(_damaged(path)) from error


def _package(estimator: Any, facts: Mapping[str, Any]) -> Package:
    inputs, outputs = (_schema(facts["signature"][role]) for role in ("inputs", "outputs"))
    signature = Signature(inputs, outputs, facts["model_id"], facts["version"], facts["digest"])
    example = record_batch(facts["example"], inputs)
    return Package(
        estimator,
        signature,
        tuple(facts["method"]),
        bool(facts["expand"]),
        Feed.from_json(facts["feed"]),
        example,
    )


def _facts(manifest: bytes, path: Path) -> dict[str, Any]:
    import sklearn

    try:
        facts: dict[str, Any] = json.loads(manifest)
        version, libraries, files = facts["format"], facts["libraries"], facts["files"]
        fitted = str(libraries["scikit-learn"])
        sound = MODEL in files and all(
            NAME.fullmatch(name) and isinstance(files[name], str) for name in files
        )
    except DAMAGE as error:
        raise ConfigError(_damaged(path)) from error
    if version != FORMAT:
        msg = f"{path}: wanted a package of format {FORMAT}, found {version!r}; install the mlinfer that wrote it, or save it again"
        raise ConfigError(msg)
    if not sound:
        raise ConfigError(_damaged(path))
    if fitted.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise ConfigError(_skops_files.other_version(str(path), fitted, sklearn.__version__))
    return facts


def _manifest(package: Package, content: bytes) -> bytes:
    import sklearn
    import skops

    signature = package.signature
    facts = {
        "format": FORMAT,
        "model_id": signature.model_id,
        "version": signature.version,
        "digest": signature.digest,
        "estimator": f"{type(package.estimator).__module__}.{type(package.estimator).__qualname__}",
        "method": list(package.methods),
        "expand": package.expand,
        "feed": package.feed.to_json(),
        "signature": {"inputs": _text(signature.inputs), "outputs": _text(signature.outputs)},
        "fields": {"inputs": _readable(signature.inputs), "outputs": _readable(signature.outputs)},
        "example": _record(package.example),
        "files": {MODEL: hashlib.sha256(content).hexdigest()},
        "libraries": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "skops": skops.__version__,
        },
    }
    return json.dumps(facts, indent=1, allow_nan=False, default=str).encode()


def record_batch(record: Mapping[str, Any], inputs: pa.Schema) -> pa.RecordBatch:
    """The record of a manifest, twice: an estimator that answers columns cannot be mistaken for one that answers records."""
    batch, _, bad = batch_from_rows([dict(record)] * 2, inputs)
    if bad:
        raise ValueError(bad[0].message)
    columns = [column.cast(field.type) for column, field in zip(batch.columns, inputs, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=inputs)


def _record(example: pa.RecordBatch) -> dict[str, Any]:
    """The first record without gaps, else the first; JSON knows neither NaN nor infinity."""
    records = [{name: _jsonable(value) for name, value in row.items()} for row in example.to_pylist()]
    return next((record for record in records if None not in record.values()), records[0])


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _readable(schema: pa.Schema) -> list[dict[str, Any]]:
    return [{"name": field.name, "type": str(field.type), "nullable": field.nullable} for field in schema]


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _schema(text: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text, validate=True)))


def _damaged(path: Path) -> str:
    return f"{path}/{MANIFEST}: wanted the manifest of a package that mlinfer.save wrote, found something damaged or foreign"
