"""Any ONNX model as a host."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Host, Model, Signature, as_column, as_numpy, located, watched
from mlinfer.hosts._model_files import check_digest, check_spelling, read, stamp
from mlinfer.hosts._onnx_file import check_self_contained
from mlinfer.hosts._onnx_session import session
from mlinfer.hosts._onnx_values import Value, check_single, seen, value_of


@dataclass(frozen=True)
class OnnxHost(Host):
    """Runs an ONNX model in ONNX Runtime, on the processor. Needs `pip install 'mlinfer[onnx]'`.

    Args:
        model: the path of the file. It must hold all its tensors itself; files beside it are not read.
        threads: how many threads one call may use; never more than the machine has processors.
        sha256: the SHA-256 (64 hex digits) that the file must have.
        watch: look for newer versions of the file, renamed into its place whole, and let them take over between two
            batches. See docs/models.md.

    Every input and output is a column of that name: a number, text or boolean where the shape is (n,) or (n, 1), else a
    list with all values of the record's tensor, row by row. Every record needs a value in every column.
    """

    model: str | os.PathLike[str]
    threads: int = 1
    sha256: str | None = None
    watch: bool = False
    shared = True  # a session may be asked by several threads

    @contextmanager
    def open(self) -> Iterator[Model]:
        """The model, ready to be asked.

        Raises ConfigError: it is absent, damaged, not the one that was meant, not self-contained, or has inputs or
        outputs that are no columns.
        """
        check_spelling(self.sha256)
        if type(self.threads) is not int or self.threads < 1:
            msg = f"threads: wanted a whole number of 1 or more, found {self.threads!r}"
            raise ConfigError(msg)
        if not self.watch:
            yield self._load()
            return
        if self.sha256 is not None:
            msg = "watch: wanted a file that may change, found sha256=, which only one version can have; leave one of them out"
            raise ConfigError(msg)
        with watched(self._load, lambda: stamp(located(self.model))) as model:
            yield model

    def _load(self) -> OnnxModel:
        path = located(self.model)
        content = read(path)
        if self.sha256 is not None:
            check_digest(content, self.sha256, str(path))
        check_self_contained(content, str(path))
        return OnnxModel(session(content, str(path), threads=self.threads), content, path)


class OnnxModel:
    """A session and what its tensors are called."""

    def __init__(self, running: Any, content: bytes, path: Path) -> None:
        self._session = running
        self._inputs = [value_of(one, str(path)) for one in running.get_inputs()]
        self._single = any(value.batch == 1 for value in self._inputs)
        self._names = [one.name for one in running.get_outputs()]
        self._outputs: list[Value] = []
        if not self._inputs or any(value.batch not in {None, 1} for value in self._inputs):
            msg = f"{path}: wanted inputs whose first dimension counts records, found {[str(v) for v in self._inputs]}; export the model with a first dimension that may vary"
            raise ConfigError(msg)
        self._outputs = seen(running, self._ask_zeros, str(path))
        digest = hashlib.sha256(content).hexdigest()
        inputs, outputs = (pa.schema([v.field for v in values]) for values in (self._inputs, self._outputs))
        self.signature = Signature(inputs, outputs, path.stem, digest[:12], digest)

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        columns = {name: as_numpy(records.column(n)) for n, name in enumerate(records.schema.names)}
        answers = self.infer_arrays(columns)
        arrays = [as_column(answers[field.name], field).cast(field.type) for field in self.signature.outputs]
        return pa.RecordBatch.from_arrays(arrays, schema=self.signature.outputs)

    def infer_arrays(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Answer arrays, shape (n,) or (n, k), with arrays."""
        rows = len(next(iter(columns.values())))
        if not rows:
            return {value.name: value.empty() for value in self._outputs}
        fed = {value.name: value.tensor(columns[value.name]) for value in self._inputs}
        return {
            value.name: value.column(found)
            for value, found in zip(self._outputs, self._run(fed, rows), strict=True)
        }

    def explain(self) -> list[str]:
        """What runs."""
        import onnxruntime

        return [f"ONNX Runtime {onnxruntime.__version__}"]

    def _ask_zeros(self, rows: int) -> list[np.ndarray]:
        """What it answers to records of zeros and empty texts. Raises whatever it raises."""
        return self._run({value.name: value.zeros(rows) for value in self._inputs}, rows)

    def _run(self, fed: Mapping[str, np.ndarray], rows: int) -> list[np.ndarray]:
        if not self._single or rows == 1:
            return list(self._session.run(self._names, fed))
        parts = [
            self._session.run(self._names, {name: tensor[row : row + 1] for name, tensor in fed.items()})
            for row in range(rows)
        ]
        for name, answers in zip(self._names, zip(*parts, strict=True), strict=True):
            check_single(name, answers)  # two of one record and none of the next would be two, too
        return [np.concatenate(one) for one in zip(*parts, strict=True)]
