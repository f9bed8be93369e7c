"""Writes a package: a model as data, its manifest, and what is known of its training."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ComponentError, ConfigError, durable, located
from mlinfer.hosts._compiling import Compiled
from mlinfer.hosts._package import FORM, FORMAT, LARGEST_MANIFEST, MANIFEST, MODEL, NAME, Package, sealed
from mlinfer.hosts._pictures import TAKEN
from mlinfer.hosts._pillow import pillow

SUFFIX = ".mlinfer"


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: `training`, a JSON object for the manifest, and `files` to keep beside it.

    The files are part of the package: their digests are compared whenever it is opened. `unseen`: inputs that it was not
    fitted on; a compiled form must answer them as the estimator does. They are not kept.
    """

    training: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    unseen: pa.Table | None = None


def write(
    path: Path,
    package: Package,
    content: bytes,
    about: tuple[Compiled, Origin | None],
    *,
    replace: bool = False,
) -> None:
    """Write a package; `content` are the bytes of its skops file. It is there whole, or not at all.

    With `replace` it takes the place of the package that is there, in one step. Raises ConfigError: there is something else
    at that path; ComponentError: the disk is full, or the like.
    """
    check_free(path, replace=replace)
    compiled, origin = about
    files = {MODEL: content, **({} if compiled.form is None else {FORM: compiled.form.dump()})}
    files |= origin.files if origin else {}
    manifest = _manifest(package, files, *about)
    if len(manifest) > LARGEST_MANIFEST:
        msg = f"{path}: wanted a manifest of at most {LARGEST_MANIFEST:,} bytes, found {len(manifest):,}; give fewer features or groups"
        raise ConfigError(msg)
    scratch = durable.temporary(path)
    try:
        durable.make_folder(path.parent)
        durable.make_folder(scratch)
        for name, data in {**files, MANIFEST: manifest}.items():
            with durable.create(scratch / name) as file:
                file.write(data)
        durable.flush_folder(scratch)
        check_free(path, replace=replace)
        if replace and path.exists():
            durable.exchange(scratch, path)
            shutil.rmtree(scratch)
        else:
            durable.rename(scratch, path)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            msg = f"{path}: wanted to write the package, found {error.strerror}; nothing was changed: make room, or name another place"
            raise ComponentError(msg) from error
        raise


def expect_place(path: str | os.PathLike[str]) -> None:
    """Raise ConfigError if no model can be saved here: something is there, or its name would be none, or nobody may write.

    For whoever is about to fit a model for hours: `save` would say so only then.
    """
    place = located(path)
    check_free(place)
    model_id_at(place)


def model_id_at(path: Path, name: str | None = None) -> str:
    """The name of a model that is to be saved here. Raises ConfigError: it is none, or this user may not write here."""
    name = name or path.name.removesuffix(SUFFIX)
    if not NAME.fullmatch(name):
        msg = f"name: wanted letters, digits, '.', '_' and '-' (at most 128), found {name!r}"
        raise ConfigError(msg)
    durable.expect_writable(path.parent)
    return name


def check_free(path: Path, *, replace: bool = False) -> None:
    """Raises ConfigError: there is something at that path; with `replace`, something that is no package."""
    package = path.is_dir() and not path.is_symlink() and (path / MANIFEST).is_file()
    if replace and package:
        return
    if os.path.lexists(path):
        found, way = ("a package", ", or let mlinfer.save replace it") if package else ("something", "")
        msg = f"{path}: wanted a new path for the package, found {found} there; remove it or choose another name{way}"
        raise ConfigError(msg)


def _manifest(
    package: Package, files: Mapping[str, bytes], compiled: Compiled, origin: Origin | None
) -> bytes:
    import sklearn
    import skops

    signature, pictures = package.signature, package.pictures
    taken = signature.inputs if pictures is None else pa.schema([TAKEN])
    return sealed({
        "format": FORMAT,
        "model_id": signature.model_id,
        "version": signature.version,
        "digest": signature.digest,
        "estimator": f"{type(package.estimator).__module__}.{type(package.estimator).__qualname__}",
        "method": list(package.methods),
        "expand": package.expand,
        "feed": package.feed.to_json(),
        "signature": {"inputs": _text(signature.inputs), "outputs": _text(signature.outputs)},
        "fields": {"inputs": _readable(taken), "outputs": _readable(signature.outputs)},
        "pictures": None if pictures is None else pictures.to_json(),
        "example": _record(package.example),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "compiled": compiled.to_json(),
        "training": None if origin is None else origin.training,
        "libraries": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "skops": skops.__version__,
            **({} if pictures is None else {"pillow": pillow().__version__}),
        },
    })  # fmt: skip


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
