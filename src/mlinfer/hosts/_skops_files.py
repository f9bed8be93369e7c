"""Estimators as skops files, which hold data and names of types, never code."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlinfer import ConfigError
from mlinfer.hosts._checked_trees import check_trees
from mlinfer.hosts._skops_library import our_list_decides, skops_io
from mlinfer.hosts._trusted import TRUSTED

LARGEST_RATIO = 100
SMALLEST_BOUND = 2**24
"""A file may unfold to a hundred times its size, or to 16 MiB."""

ADDRESSES = {"__id__", "_stop_words_id"}
"""Where skops, and vectorizers, keep the addresses of objects."""

COUNTERS = slice(7, 11)
"""Where the state of a tree of neighbours counts how it has been asked; that changes with every answer."""

NPY = b"\x93NUMPY"
STRUCTURED_WITHIN = 64
"""How a file of an array begins, and where it says that its elements are records."""

DAMAGE = (
    zipfile.BadZipFile, zlib.error, OSError, EOFError, RecursionError, RuntimeError, ImportError, AttributeError,
    LookupError, TypeError, ValueError, ArithmeticError, AssertionError,
)  # fmt: skip
"""What a damaged file makes skops, zipfile, json and numpy raise."""


def dump(estimator: Any) -> bytes:
    """An estimator as the bytes of a skops file. Raises ConfigError: it holds something that skops cannot store."""
    try:
        return skops_io().dumps(estimator)  # type: ignore[no-any-return]
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        msg = f"{type(estimator).__name__}: wanted an estimator that skops can store, found {_short(error)}"
        raise ConfigError(msg) from error


def load(content: bytes, trusted: Sequence[str], where: str) -> Any:
    """The estimator in the bytes of a skops file.

    Raises ConfigError: it holds types that are not trusted, was written by another scikit-learn, or is damaged.
    """
    try:
        _check_size(content, where)
        with our_list_decides():
            types = set(skops_io().get_untrusted_types(data=content))
        unknown = sorted(types - TRUSTED - set(trusted))
        if unknown:  # skops may know them: this is slow, and rare
            unknown = sorted(set(skops_io().get_untrusted_types(data=content)) - TRUSTED - set(trusted))
    except DAMAGE as error:
        raise ConfigError(_damaged(where, error)) from error
    if unknown:
        spelled = ", ".join(repr(name) for name in unknown)
        msg = (
            f"{where}: wanted types that are known to be data, found {', '.join(unknown)}; if you trust whoever made the "
            f"file, write trusted=[{spelled}]"
        )
        raise ConfigError(msg)
    _check_version(_schema(content), where)
    try:
        with our_list_decides():
            loaded = skops_io().loads(content, trusted=sorted(types))
        check_trees(loaded, where)
    except DAMAGE as error:
        raise ConfigError(_damaged(where, error)) from error
    return loaded


def digest_of(content: bytes) -> str:
    """A digest (hex) of what a skops file holds: the same for the same estimator in every process.

    The bytes themselves are not: they name objects by their addresses and files by random numbers, and carry the time.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        plain = _canonical(schema, archive, {})
    plain.pop("_skops_version", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _canonical(value: Any, archive: zipfile.ZipFile, known: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_canonical(item, archive, known) for item in value]
    if not isinstance(value, dict):
        return value
    loader = value.get("__loader__")
    if loader == "JsonNode":
        return value["content"]
    result = {name: _canonical(item, archive, known) for name, item in value.items() if name not in ADDRESSES}
    if loader and isinstance(value.get("file"), str):
        name = value["file"]
        if name not in known:
            known[name] = _content_digest(archive.read(name))
        result["file"] = known[name]
    if loader == "SetNode":  # sets of strings have another order in every process
        result["content"] = sorted(result["content"], key=lambda item: json.dumps(item, sort_keys=True))
    if value.get("__class__") in {"KDTree", "BallTree"} and isinstance(result.get("content"), dict):
        del result["content"]["content"][COUNTERS]
    if loader == "PartialNode":  # a partial that has been loaded has an empty namespace instead of none
        result["content"].pop("namespace", None)
    return result


def _content_digest(content: bytes) -> str:
    """Of arrays of records the fields alone: between them lies memory that nobody has written to.

    Sparse matrices are archives of arrays: what is in them counts, not when it was written.
    """
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = repr(
                [(name, _content_digest(archive.read(name))) for name in sorted(archive.namelist())]
            ).encode()
    if content.startswith(NPY) and b"'descr': [" in content[:STRUCTURED_WITHIN]:
        records = np.load(io.BytesIO(content), allow_pickle=False)
        fields = [records[name].tobytes() for name in records.dtype.names]
        content = repr((records.shape, records.dtype.names)).encode() + b"".join(fields)
    return hashlib.sha256(content).hexdigest()


def _schema(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return json.loads(archive.read("schema.json"))


def _check_size(content: bytes, where: str) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unfolded = sum(member.file_size for member in archive.infolist())
    if unfolded > max(LARGEST_RATIO * len(content), SMALLEST_BOUND):
        msg = f"{where}: wanted a file that unfolds to at most {LARGEST_RATIO} times its size, found {unfolded:,} bytes in {len(content):,}"
        raise ConfigError(msg)


def _check_version(schema: Any, where: str) -> None:
    import sklearn

    here = sklearn.__version__.split(".")[:2]
    for found in sorted(_versions(schema)):
        if found.split(".")[:2] != here:
            raise ConfigError(other_version(where, found, sklearn.__version__))


def other_version(where: str, found: str, here: str) -> str:
    """The message for a model that another scikit-learn has fitted."""
    return (
        f"{where}: wanted a model fitted with scikit-learn {'.'.join(here.split('.')[:2])}, found {found}; its answers may "
        f"differ: install 'scikit-learn=={found}', or fit and save the model again with {here}"
    )


def _versions(value: Any) -> set[str]:
    """Every scikit-learn version that an estimator in the file says it was fitted with."""
    if isinstance(value, list):
        return set().union(*map(_versions, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(_versions, value.values()))
    node = value.get("_sklearn_version")
    return found | {json.loads(node["content"])} if isinstance(node, dict) and "content" in node else found


def _damaged(where: str, error: BaseException) -> str:
    return f"{where}: wanted a skops file, found something damaged or foreign ({_short(error)}); save the model again"


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
