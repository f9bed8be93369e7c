"""scikit-learn as a host."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Host, Model, located, watched
from mlinfer.hosts._compiling import Asked, check_compile
from mlinfer.hosts._model_files import stamp
from mlinfer.hosts._opening import Loading, Opened, open_estimator
from mlinfer.hosts._package import MANIFEST
from mlinfer.hosts._pictures import Pictured


@dataclass(frozen=True, repr=False)
class SklearnHost(Host):
    """Runs a fitted scikit-learn estimator.

    Args:
        model: a fitted estimator, or the path of a file that holds one: a package that `mlinfer.save` wrote, or a `.skops`
            file. Neither can hold code.
        example: a few records as the estimator was fitted on, without the target: a data frame, an Arrow table, a numpy
            array, a list of texts. Its column types become the signature; which values may be missing is found by asking
            the estimator. Not needed for a package, nor for an estimator of numbers alone.
        method: what to ask: `predict`, `predict_proba`, `decision_function`, `score_samples`, `transform`, or several as a
            tuple. By default what the package was saved with, and `predict` for everything else.
        expand: one column per class or output (`y_proba_yes`) instead of one column of lists (`y_proba`).
        trusted: names of further types that a `.skops` file may hold.
        allow_code_format: `"pickle"` to load a `.pkl`, `.pickle` or `.joblib` file, which can run any code. Needs `sha256`.
        sha256: the SHA-256 (64 hex digits) that the file must have; for a package, its `manifest.json`.
        compile: `auto` runs the compiled form of a package, if it has a proven one for what is asked; `never` runs the
            estimator itself.
        watch: look for newer versions of the package, as `mlinfer.save(..., replace=True)` puts them there, and let them
            take over between two batches. See docs/models.md.

    Two hosts are equal when all but their examples are equal.
    """

    model: Any
    example: Any = field(default=None, compare=False)
    method: str | Sequence[str] | None = None
    expand: bool | None = None
    trusted: Sequence[str] = ()
    allow_code_format: str | None = None
    sha256: str | None = None
    compile: str = field(default="auto", compare=False)
    watch: bool = False
    shared = True  # predicting does not change an estimator

    def __repr__(self) -> str:
        """The class or the path, not what has been learned."""
        what = (
            repr(os.fspath(self.model))
            if isinstance(self.model, str | os.PathLike)
            else type(self.model).__name__
        )
        method = "" if self.method is None else f", method={self.method!r}"
        return f"SklearnHost({what}{method}{', expand=True' if self.expand else ''})"

    @contextmanager
    def open(self) -> Iterator[Model]:
        """The estimator, ready to be asked.

        Raises ConfigError: it cannot be loaded safely, cannot answer its example, or there is none and one is needed.
        """
        check_compile(self.compile)
        loading = Loading(tuple(self.trusted), self.allow_code_format, self.sha256, self.compile)

        def load() -> SklearnModel | Pictured:
            opened = open_estimator(self.model, self.example, loading, method=self.method, expand=self.expand)
            model = (SklearnModel if opened.feed_arrays is None else SklearnArrays)(opened)
            return model if opened.pictures is None else Pictured(opened.pictures, model)

        if not self.watch:
            yield load()
            return
        path = located(self.model) if isinstance(self.model, str | os.PathLike) else None
        if self.sha256 is not None or path is None or not path.is_dir():
            found = "sha256=, which only one version can have" if self.sha256 is not None else repr(self)
            msg = f"watch: wanted the path of a package (a folder, as mlinfer.save makes it), found {found}; leave watch= out"
            raise ConfigError(msg)
        with watched(load, lambda: stamp(path / MANIFEST)) as model:
            yield model


class SklearnModel(Asked):
    """An estimator at work, or its compiled form."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened.feed, opened.answers, opened.signature)
        self._form, self._example = opened.form, opened.example

    def explain(self) -> list[str]:
        """What runs, and why."""
        return [self._form]

    def example(self) -> pa.RecordBatch | None:
        """The records that its package was saved with."""
        return self._example


class SklearnArrays(SklearnModel):
    """A compiled form that needs nothing but numbers."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        self._feed_arrays: Any = opened.feed_arrays
        self._names = self._outputs.names

    def infer_arrays(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray | pa.Array]:
        """Answer one array per field."""
        data = self._feed_arrays(list(columns.values()))
        return dict(zip(self._names, self._arrays(data), strict=True))
