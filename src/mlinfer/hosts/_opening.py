"""Opens an estimator, wherever it is: in hand, in a package, in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import ConfigError, Signature, located
from mlinfer.hosts import _code_formats, _skops_files
from mlinfer.hosts._answers_of import METHODS, Answer, asked
from mlinfer.hosts._compiling import SKLEARN, form_answers
from mlinfer.hosts._feeding import feeder
from mlinfer.hosts._model_files import check_digest, check_spelling, read
from mlinfer.hosts._package import Package, open_package
from mlinfer.hosts._pictures import Pictures
from mlinfer.hosts._signature_of import REFUSALS, Study, answers_of, fed_by, returned_by
from mlinfer.hosts._studying import study_of

Methods = str | Sequence[str] | None
IN_HAND = (
    f"{SKLEARN}: an estimator in hand is asked as it is; mlinfer.save makes a package with a compiled form"
)


@dataclass(frozen=True)
class Loading:
    """What may be loaded from a file, and which file it must be."""

    trusted: Sequence[str] = ()
    code_format: str | None = None
    sha256: str | None = None
    compile: str = "auto"


@dataclass(frozen=True)
class Opened:
    """An estimator or its compiled form, ready: what records are fed to, what answers, and what it is, for people.

    `feed_arrays`: the same feeding from one array per field, where that is enough. `pictures`: how what it is fed is made of
    pictures, if it is.
    """

    feed: Callable[[Any], Any]
    answers: tuple[Answer, ...]
    signature: Signature
    form: str
    example: pa.RecordBatch | None = None
    pictures: Pictures | None = None
    feed_arrays: Callable[[Sequence[Any]], Any] | None = None


def open_estimator(
    model: Any, example: Any, loading: Loading, *, method: Methods = None, expand: bool | None = None
) -> Opened:
    """An estimator studied, and its signature. Raises ConfigError: see `SklearnHost.open`."""
    check_spelling(loading.sha256)
    if not isinstance(model, str | os.PathLike):
        if loading != Loading(compile=loading.compile):
            msg = f"{type(model).__name__}: trusted=, sha256= and allow_code_format= are for files, found an estimator in hand"
            raise ConfigError(msg)
        study = study_of(model, example, asked(method), expand=bool(expand))
        return _signed(study, type(model).__name__, digest_of(model), IN_HAND)
    path = located(model)
    if path.is_dir():
        if example is not None:
            msg = f"{path}: a package brings its own signature; leave example= out"
            raise ConfigError(msg)
        wanted = None if loading.compile == "never" else (() if method is None else asked(method))
        package = open_package(path, loading.trusted, loading.sha256, wanted)
        return _packaged(package, method, expand=package.expand if expand is None else expand)
    estimator, digest = _from_file(path, loading)
    study = study_of(estimator, example, asked(method), expand=bool(expand))
    return _signed(
        study,
        path.stem,
        digest,
        f"{SKLEARN}: a file without a compiled form; mlinfer.save makes a package with one",
    )


def digest_of(estimator: Any) -> str:
    """A digest of all that an estimator in hand has learned, the same in every process if skops can store it."""
    try:
        content = _skops_files.dump(estimator)
    except ConfigError:
        return _code_formats.digest(estimator)
    return _skops_files.digest_of(content)


def _signed(study: Study, name: str, digest: str, form: str) -> Opened:
    signature = Signature(study.inputs, study.outputs, name, digest[:12], digest)
    return Opened(feeder(study.feed, study.inputs), study.answers, signature, form)


def _packaged(package: Package, method: Methods, *, expand: bool) -> Opened:
    """The package's own signature; asked for something else, the model shows what it answers to the example."""
    methods = package.methods if method is None else asked(method)
    own = package.signature
    feed_arrays = None
    if package.form is not None:
        feed, feed_arrays = package.form.scorer(own.inputs), package.form.array_scorer(own.inputs)
        answers = form_answers(package.form, methods, feed(package.example), expand=expand)
        study = Study(own.inputs, package.feed, answers)
    else:
        study = study_again(package, methods, expand=expand)
        feed = feeder(study.feed, study.inputs)
    if (methods, expand) == (package.methods, package.expand) and not study.outputs.equals(own.outputs):
        msg = f"model {own.model_id!r}: wanted the answers {own.outputs.names} that its package names, found {study.outputs.names}"
        raise ConfigError(msg)
    signature = Signature(own.inputs, study.outputs, own.model_id, own.version, own.digest)
    return Opened(
        feed, study.answers, signature, package.runs, package.example, package.pictures, feed_arrays
    )


def study_again(package: Package, methods: Sequence[str], *, expand: bool) -> Study:
    """What a package's estimator answers, seen from the package's example. Raises ConfigError: it does not."""
    fed = fed_by(package.estimator, package.feed)
    absent = [name for name in methods if not hasattr(fed, name)]
    if absent:
        there = ", ".join(name for name in METHODS if hasattr(fed, name))
        msg = f"model {package.signature.model_id!r}: wanted the method {absent[0]!r}, found {there}"
        raise ConfigError(msg)
    try:
        returned = returned_by(fed, methods, package.feed, package.example)
    except REFUSALS as error:
        msg = f"model {package.signature.model_id!r}: cannot answer its package's own example ({error}); save it again"
        raise ConfigError(msg) from error
    return Study(package.signature.inputs, package.feed, answers_of(fed, methods, returned, expand=expand))


def _from_file(path: Path, loading: Loading) -> tuple[Any, str]:
    """The estimator in a file, and its digest; the file's name alone says what is in it."""
    suffix = path.suffix.lower()
    if suffix not in {".skops", *_code_formats.SUFFIXES}:
        known = ", ".join([".skops", *_code_formats.SUFFIXES])
        found = (
            (suffix or "no ending") if path.exists() else f"nothing at {path.absolute()}; correct the path"
        )
        msg = f"{path}: wanted a package (a folder, as mlinfer.save makes it) or a file ending in {known}, found {found}"
        raise ConfigError(msg)
    if suffix in _code_formats.SUFFIXES and (loading.code_format != "pickle" or loading.sha256 is None):
        msg = (
            f"{path}: wanted a format that cannot hold code (save the model with mlinfer.save), found {suffix}, which runs "
            "whatever its author wrote; if you trust the author, give both allow_code_format='pickle' and "
            "sha256='...' (64 hex digits, of the file that you mean)"
        )
        raise ConfigError(msg)
    content = read(path)
    if loading.sha256 is not None:
        check_digest(content, loading.sha256, str(path))
    if suffix in _code_formats.SUFFIXES:
        estimator = _code_formats.load(content, suffix, str(path))
        _check_kind(estimator, path)
        return estimator, digest_of(estimator)
    estimator = _skops_files.load(content, loading.trusted, str(path))
    _check_kind(estimator, path)
    return estimator, _skops_files.digest_of(content)


def _check_kind(found: Any, path: Path) -> None:
    """Raises ConfigError: what was in the file is no model."""
    if not any(hasattr(found, method) for method in METHODS):
        msg = f"{path}: wanted a fitted estimator, found {type(found).__name__}; save the model itself"
        raise ConfigError(msg)
