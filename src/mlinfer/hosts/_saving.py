"""Saves an estimator as a package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import ConfigError, Signature, located
from mlinfer.hosts import _skops_files
from mlinfer.hosts._answers_of import asked
from mlinfer.hosts._compiling import Compiled, check_compile, form_of
from mlinfer.hosts._opening import study_again
from mlinfer.hosts._package import Package
from mlinfer.hosts._package_writing import Origin, check_free, model_id_at, write
from mlinfer.hosts._pictures import Pictures
from mlinfer.hosts._signature_of import Study, alike, fed_by, returned_by, study
from mlinfer.hosts._skops_bytes import same_everywhere
from mlinfer.hosts._studying import shown


def save(  # noqa: PLR0913 - the model, the place, and what `SklearnHost` is told
    model: Any,
    path: str | os.PathLike[str],
    *,
    example: Any = None,
    name: str | None = None,
    method: str | Sequence[str] = "predict",
    expand: bool = False,
    trusted: Sequence[str] = (),
    compile: str = "auto",  # noqa: A002 - what the user calls it
    origin: Origin | None = None,
    pictures: Pictures | None = None,
    replace: bool = False,
) -> Path:
    """Save a fitted scikit-learn estimator as a package: a folder with its data, its signature and their digests.

    Args:
        model: the fitted estimator.
        path: where the folder is made, `flight-delays.mlinfer`; nothing may be there, but see `replace`.
        example: records as the estimator was fitted on, without the target; see `SklearnHost`. A compiled form must answer
            all of them (the first 4,096) as the estimator does; one is stored in the package. Not needed for an estimator of
            numbers alone.
        name: the model's id; by default the name of the folder.
        method: what the package is asked for by default.
        expand: one column per class or output instead of one column of lists.
        trusted: names of the types in it that are neither scikit-learn's nor numpy's nor scipy's; whoever opens the package
            must name them too.
        compile: `auto` adds the fastest form that is known for such an estimator and proven to answer the same (see
            docs/models.md); `never` does not.
        origin: what is known of its training, for the manifest and beside it; `mlinfer.train` gives it.
        pictures: how pictures become the numbers that the estimator was fitted on (`Pictures.matrix` makes them). The package
            then takes `bytes` of pictures and prepares them itself.
        replace: take the place of the package at this path, in one step: a new version for the hosts that watch it.

    Returns the path. The package is there whole, or not at all; before it is there, it has been loaded from its bytes and
    has given the same answers to the example as the model in hand.

    Raises ConfigError: something is at the path, the estimator cannot answer its example or cannot be stored as data.

    >>> import tempfile
    >>> from mlinfer.hosts import SklearnHost
    >>> from sklearn.linear_model import LinearRegression
    >>> fitted = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     package = save(fitted, f"{folder}/twice.mlinfer")
    ...     with SklearnHost(package).open() as model:
    ...         print(model.signature.model_id)
    twice
    """
    path = located(path)
    check_free(path, replace=replace)
    model_id = model_id_at(path, name)
    check_compile(compile)
    methods = asked(method)
    records = shown(model, example, methods)
    found = study(model, records, methods, expand=expand)
    content = same_everywhere(_skops_files.dump(model))
    digest = _digest(content, pictures, found, path)
    signature = Signature(found.inputs, found.outputs, model_id, digest[:12], digest)
    batch = pa.RecordBatch.from_arrays(records.batch.columns, schema=found.inputs)
    loaded = _skops_files.load(content, trusted, str(path))
    package = Package(loaded, signature, methods, expand, found.feed, batch, pictures=pictures)
    before = returned_by(fed_by(model, found.feed), methods, found.feed, batch)
    after = returned_by(fed_by(loaded, found.feed), methods, found.feed, batch)
    if not alike(after, before) or not study_again(package, methods, expand=expand).outputs.equals(
        found.outputs
    ):
        msg = f"{path}: wanted a package that answers as the model does, found other answers once it was loaded; it is not saved"
        raise ConfigError(msg)
    form = Compiled(None, "saved with compile='never'")
    if compile == "auto":
        given = {"whole example": records.whole, "unseen": None if origin is None else origin.unseen}
        form = form_of(loaded, found, batch, given)
    write(path, package, content, (form, origin), replace=replace)
    return path


def _digest(content: bytes, pictures: Pictures | None, found: Study, path: Path) -> str:
    """Of what has been learned and of how pictures are prepared. Raises ConfigError: they do not fit together."""
    digest = _skops_files.digest_of(content)
    if pictures is None:
        return digest
    fields, width = list(found.inputs), pictures.width
    if (
        len(fields) != 1
        or not pa.types.is_fixed_size_list(fields[0].type)
        or fields[0].type.list_size != width
    ):
        takes = ", ".join(f"{field.name}: {field.type}" for field in fields[:5])
        msg = f"{path}: wanted an estimator that takes a matrix of {width:,} numbers a picture, as {pictures!r} makes them, found one that takes {takes}; fit it on pictures.matrix([...])"
        raise ConfigError(msg)
    return hashlib.sha256(f"{digest} {pictures!r}".encode()).hexdigest()
