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

from mlinfer import ComponentError, ConfigError, Host, Model, Signature, as_column, as_numpy, digest_of_code
from mlinfer.hosts._order import check_order

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
        version: changes when the answers change. By default a digest of the function's source text, or of its code where no
            file holds that (typed in, `functools.partial`, an object that can be called).
        shared: whether several threads may call the function at the same time.

    >>> twice = FunctionHost(lambda x: 2 * x, {"x": "double"}, {"y": "double"}, takes="numpy", version="1")
    >>> with twice.open() as model:
    ...     model.infer(pa.record_batch({"x": [1.5]})).to_pylist()
    [{'y': 3.0}]
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
        inputs, outputs = _schema(self.inputs, "inputs"), _schema(self.outputs, "outputs")
        _check_call(self.function, inputs, self.takes)
        name = getattr(self.function, "__name__", type(self.function).__name__)
        digest = _digest(self.function) if self.version is None else self.version
        signature = Signature(inputs, outputs, name, self.version or digest[:12], digest)
        if self.takes == "numpy":
            yield ArrayFunctionModel(self.function, signature)
        else:
            yield FunctionModel(self.function, signature, self.takes)


def host(
    *bare: object,
    inputs: Fields | None = None,
    outputs: Fields | None = None,
    takes: Takes = "arrow",
    version: str | None = None,
    shared: bool = False,
) -> Callable[[Callable[..., Any]], FunctionHost]:
    """Turn a function into a host; see `FunctionHost` for the arguments. Raises ConfigError: it is not told the fields.

    >>> import mlinfer, pyarrow as pa
    >>> from mlinfer.destinations import MemoryDestination
    >>> from mlinfer.sources import MemorySource
    >>> @mlinfer.host(inputs={"x": pa.float64()}, outputs={"y": pa.float64()}, takes="numpy", version="1")
    ... def twice(x):
    ...     return 2 * x
    >>> scores = MemoryDestination()
    >>> pipeline = mlinfer.InferencePipeline(MemorySource({"x": [1.0, 2.0]}), twice, scores, name="twice")
    >>> pipeline.run().delivered
    2
    >>> pipeline.infer([{"x": 21.0}]).to_pylist()
    [{'y': 42.0}]
    """
    if bare or inputs is None or outputs is None:
        msg = (
            "@mlinfer.host: wanted the function's inputs and outputs, found none; say which fields it reads and answers: "
            '@mlinfer.host({"x": "double"}, {"y": "double"})'
        )
        raise ConfigError(msg)
    return lambda function: FunctionHost(function, inputs, outputs, takes, version, shared)


class FunctionModel:
    """Calls the function with what it asks for."""

    def __init__(self, function: Callable[..., Any], signature: Signature, takes: Takes) -> None:
        self.signature = signature
        self._function, self._takes = function, takes

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch. Raises ComponentError when its rows come back in another order."""
        name = self.signature.model_id
        if self._takes == "arrow":
            answers = self._function(records)
        else:
            frame = records.to_pandas(ignore_metadata=True)  # numbered as its rows are, not as some frame was
            answers = self._function(frame)
            check_order(frame, name)  # one that was sorted in place has taken its values along
        check_order(answers, name)
        return self._as_batch(answers)

    def _as_batch(self, answers: Any) -> pa.RecordBatch:
        outputs = self.signature.outputs
        if isinstance(answers, pa.RecordBatch):
            return _apart(answers) if answers.num_columns else answers
        if isinstance(answers, pa.Table):
            return _apart(answers.combine_chunks().to_batches()[0]) if answers.num_rows else _nothing(outputs)
        if hasattr(answers, "to_dict") and hasattr(answers, "columns"):
            columns = {str(name): answers[name] for name in answers.columns}
            answers = {name: one if hasattr(one, "isna") else one.to_numpy() for name, one in columns.items()}
        named = by_name(answers, self.signature)
        return pa.RecordBatch.from_arrays(
            [as_column(named[field.name], field) for field in outputs], names=outputs.names
        )


class ArrayFunctionModel:
    """Calls the function with numpy arrays."""

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self.signature = signature
        self._function = function
        names = signature.outputs.names
        self._only = names[0] if len(names) == 1 else None

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        answers = self.infer_arrays(
            {name: as_numpy(records.column(n)) for n, name in enumerate(records.schema.names)}
        )
        outputs = self.signature.outputs
        return pa.RecordBatch.from_arrays(
            [as_column(answers[field.name], field) for field in outputs], names=outputs.names
        )

    def infer_arrays(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Answer arrays."""
        answers = self._function(**columns)
        if self._only is not None and type(answers) is np.ndarray:
            return {self._only: answers}
        check_order(answers, self.signature.model_id)
        return by_name(answers, self.signature)


def by_name(answers: Any, signature: Signature) -> Mapping[str, Any]:
    """A function's answers by the names of its outputs. Raises ComponentError if they are others."""
    outputs = signature.outputs
    if isinstance(answers, Mapping):
        if answers.keys() == set(outputs.names):
            return {name: _settled(one) for name, one in answers.items()}
    elif len(outputs) == 1:
        return {outputs.names[0]: _settled(answers)}
    found = sorted(map(str, answers)) if isinstance(answers, Mapping) else type(answers).__name__
    msg = f"function {signature.model_id!r}: wanted the answers {outputs.names}, found {found}"
    raise ComponentError(msg)


def _apart(answers: pa.RecordBatch) -> pa.RecordBatch:
    if not any(map(pa.types.is_dictionary, answers.schema.types)):  # many columns are copied sooner together
        return pa.concat_batches([answers, answers.slice(0, 0)])
    return pa.RecordBatch.from_arrays([_copied(one) for one in answers.columns], schema=answers.schema)


def _copied(column: pa.Array) -> pa.Array:
    """The same in other memory: `pa.array` looks into the numpy array it is given, which the function may fill again."""
    if isinstance(column, pa.DictionaryArray):
        parts = _copied(column.indices), _copied(column.dictionary)
        return pa.DictionaryArray.from_arrays(*parts, ordered=column.type.ordered, safe=False)
    return pa.concat_arrays([column, column.slice(0, 0)])


def _settled(values: Any) -> Any:
    """A column of pandas as one of numpy, with None for what pandas calls missing among objects; one of Arrow in other memory."""
    if isinstance(values, pa.Array):
        return _copied(values)
    if not hasattr(values, "isna"):
        return values
    dtype = getattr(values, "dtype", None)  # two columns of one name have none
    if dtype is None or (isinstance(dtype, np.dtype) and dtype.kind != "O"):
        return values.to_numpy()
    return values.to_numpy(object, na_value=None)


def _nothing(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _schema(fields: Fields, role: str) -> pa.Schema:
    if isinstance(fields, pa.Schema):
        return fields
    return pa.schema([_field(name, kind, role) for name, kind in fields.items()])


def _field(name: str, kind: pa.DataType | str, role: str) -> pa.Field:
    try:
        return pa.field(name, pa.type_for_alias(kind) if isinstance(kind, str) else kind, nullable=False)
    except (ValueError, TypeError) as error:
        msg = (
            f"FunctionHost {role}: wanted an Arrow type for {name!r}, or the name of one (string, int64, double, bool, "
            f"timestamp[us], ...), found {kind!r}"
        )
        raise ConfigError(msg) from error


def _check_call(function: Any, inputs: pa.Schema, takes: Takes) -> None:
    """Raise ConfigError if the function cannot be called with its inputs: else each record would be rejected for that."""
    if not callable(function):
        msg = f"FunctionHost: wanted a function, found {type(function).__name__} {function!r}"
        raise ConfigError(msg)
    try:
        asks = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C do not tell
        return
    try:
        if takes == "numpy":
            asks.bind(**dict.fromkeys(inputs.names))
        else:
            asks.bind(None)
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        given = {
            "numpy": f"the arguments {', '.join(inputs.names)}, as its inputs are called",
            "arrow": "one argument, a pyarrow.RecordBatch (takes='numpy' gives an array per input)",
            "pandas": "one argument, a data frame",
        }[takes]
        msg = f"FunctionHost: wanted a function that takes {given}, found {name}{asks}: {error}"
        raise ConfigError(msg) from error


def _digest(function: Callable[..., Any]) -> str:
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed in, made by a program, or an object that can be called
        text = digest_of_code(function)
    return hashlib.sha256(text.encode()).hexdigest()


def _pandas() -> None:
    try:
        import pandas  # noqa: F401, ICN001 - only to see whether it is there
    except ImportError as error:
        msg = "takes='pandas' needs pandas: pip install 'mlinfer[pandas]'"
        raise ConfigError(msg) from error
