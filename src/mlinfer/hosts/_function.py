"""A plain function as a host."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from mlinfer import ComponentError, ConfigError, Host, Model, Signature

Fields: TypeAlias = pa.Schema | Mapping[str, pa.DataType | str]
Takes: TypeAlias = Literal["arrow", "numpy", "pandas"]


@dataclass(frozen=True)
class FunctionHost(Host):
    """Runs a function over batches.

    Args:
        function: takes a batch and answers it: one answer per record, in order. With `takes="arrow"` it is given one
            `pyarrow.RecordBatch`; with `numpy` one read-only array per input field, as keyword arguments; with `pandas` a
            data frame. It returns a record batch, a dict of columns, a data frame, or one array for a single output.
        inputs: the fields it reads, as a schema or as names with types. In a mapping every record must have a value;
            in a schema a nullable field need not.
        outputs: the fields it answers, likewise.
        version: changes when the answers change. By default a digest of the function's source text.
        shared: whether several threads may call the function at the same time.
    """

    function: Callable[..., Any]
    inputs: Fields = field(hash=False)
    outputs: Fields = field(hash=False)
    takes: Takes = "arrow"
    version: str | None = None
    shared: bool = False

    @contextmanager
    def open(self) -> Iterator[Model]:
        """The function, ready to be called."""
        if self.takes not in {"arrow", "numpy", "pandas"}:
            msg = f"FunctionHost: wanted takes='arrow', 'numpy' or 'pandas', found {self.takes!r}"
            raise ConfigError(msg)
        if self.takes == "pandas":
            _pandas()
        name = getattr(self.function, "__name__", type(self.function).__name__)
        digest = _digest(self.function) if self.version is None else self.version
        signature = Signature(
            _schema(self.inputs), _schema(self.outputs), name, self.version or digest[:12], digest
        )
        yield FunctionModel(self.function, signature, self.takes)


def host(
    *,
    inputs: Fields,
    outputs: Fields,
    takes: Takes = "arrow",
    version: str | None = None,
    shared: bool = False,
) -> Callable[[Callable[..., Any]], FunctionHost]:
    """Turn a function into a host: `@mlinfer.host(inputs={"x": pa.float64()}, outputs={"y": pa.float64()})`."""
    return lambda function: FunctionHost(function, inputs, outputs, takes, version, shared)


class FunctionModel:
    """Calls the function in the way it asks for."""

    def __init__(self, function: Callable[..., Any], signature: Signature, takes: Takes) -> None:
        self.signature = signature
        self._call = {"arrow": function, "numpy": self._with_numpy, "pandas": self._with_pandas}[takes]
        self._function = function

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        return self._as_batch(self._call(records))

    def _with_numpy(self, records: pa.RecordBatch) -> Any:
        return self._function(
            **{name: as_numpy(records.column(n)) for n, name in enumerate(records.schema.names)}
        )

    def _with_pandas(self, records: pa.RecordBatch) -> Any:
        return self._function(records.to_pandas())

    def _as_batch(self, answers: Any) -> pa.RecordBatch:
        outputs = self.signature.outputs
        if isinstance(answers, pa.RecordBatch):
            return answers
        if isinstance(answers, pa.Table):
            return (
                answers.combine_chunks().to_batches()[0]
                if answers.num_rows
                else outputs.empty_table().to_batches()[0]
            )
        if isinstance(answers, np.ndarray | pa.Array | list) and len(outputs) == 1:
            answers = {outputs.names[0]: answers}
        if hasattr(answers, "to_dict") and hasattr(answers, "columns"):
            answers = {str(name): answers[name].to_numpy() for name in answers.columns}
        if not isinstance(answers, Mapping) or set(answers) != set(outputs.names):
            found = sorted(map(str, answers)) if isinstance(answers, Mapping) else type(answers).__name__
            msg = f"function {self.signature.model_id!r}: wanted the answers {outputs.names}, found {found}"
            raise ComponentError(msg)
        return pa.RecordBatch.from_arrays(
            [_as_array(answers[field.name], field) for field in outputs], names=outputs.names
        )


def as_numpy(array: pa.Array) -> np.ndarray:
    """A column as a numpy array that cannot be written to: tensors as matrices, nulls of floats as NaN."""
    if pa.types.is_fixed_size_list(array.type):
        values = array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    else:
        values = array.to_numpy(zero_copy_only=False)
    view = values.view()
    view.flags.writeable = False
    return view  # type: ignore[no-any-return]


def _as_array(values: Any, field: pa.Field) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        flat = pa.array(np.ascontiguousarray(values).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if isinstance(values, np.ndarray) and values.dtype != object:
        return pa.array(values)
    return pa.array(list(values), field.type)


def _schema(fields: Fields) -> pa.Schema:
    if isinstance(fields, pa.Schema):
        return fields
    return pa.schema(
        [
            pa.field(n, pa.type_for_alias(kind) if isinstance(kind, str) else kind, nullable=False)
            for n, kind in fields.items()
        ]
    )


def _digest(function: Callable[..., Any]) -> str:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = repr(getattr(function, "__code__", function).__class__) + getattr(function, "__qualname__", "")
    return hashlib.sha256(text.encode()).hexdigest()


def _pandas() -> None:
    try:
        import pandas  # noqa: F401, ICN001 - only to see whether it is there
    except ImportError as error:
        msg = "takes='pandas' needs pandas: pip install 'mlinfer[pandas]'"
        raise ConfigError(msg) from error
