"""scikit-learn as a host."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mlinfer import Host, Model, Signature
from mlinfer.hosts._feeding import feeder
from mlinfer.hosts._opening import Loading, open_estimator
from mlinfer.hosts._signature_of import Study


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

    Two hosts are equal when all but their examples are equal.
    """

    model: Any
    example: Any = field(default=None, compare=False)
    method: str | Sequence[str] | None = None
    expand: bool | None = None
    trusted: Sequence[str] = ()
    allow_code_format: str | None = None
    sha256: str | None = None
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
        loading = Loading(tuple(self.trusted), self.allow_code_format, self.sha256)
        study, signature = open_estimator(
            self.model, self.example, loading, method=self.method, expand=self.expand
        )
        yield SklearnModel(study, signature)


class SklearnModel:
    """An estimator at work."""

    def __init__(self, study: Study, signature: Signature) -> None:
        self.signature = signature
        self._feed = feeder(study.feed, study.inputs)
        self._answers = study.answers
        self._outputs = signature.outputs

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        if not records.num_rows:  # scikit-learn refuses to answer nothing
            return pa.RecordBatch.from_pylist([], schema=self._outputs)
        data = self._feed(records)
        columns = [column for answer in self._answers for column in answer.columns(answer.ask(data))]
        return pa.RecordBatch.from_arrays(columns, schema=self._outputs)
