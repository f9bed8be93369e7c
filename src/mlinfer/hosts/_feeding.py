"""From a record batch back to what an estimator was fitted on: a matrix, a list of texts or a data frame."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, as_numpy, is_text

Kind = Literal["tensor", "copied tensor", "array", "texts", "pandas", "polars", "objects"]


@dataclass(frozen=True)
class Feed:
    """How a batch is handed to an estimator; decided once, when the model is opened or saved.

    `tensor`: the only field is a list of numbers and becomes a matrix that cannot be written to (`copied tensor`: one
    that can, for estimators that work in place). `array`: numeric columns become a matrix. `texts`: the only field
    becomes an array of strings. `pandas`, `polars`: a data frame. `objects`: a matrix of Python values.

    `dtypes`: what pandas calls the types of the columns. `nones`: the columns in which a missing value is None; in all
    others it is NaN.
    """

    kind: Kind
    dtypes: Mapping[str, str] = field(default_factory=dict)
    nones: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Feed:
        """The feed that a package names."""
        return cls(value["kind"], dict(value["dtypes"]), tuple(value["nones"]))


def feeder(feed: Feed, inputs: pa.Schema) -> Callable[[pa.RecordBatch], Any]:
    """The function that turns batches of this schema into what the estimator takes.

    Raises ConfigError: the data frame library that it needs is not installed.
    """
    if feed.kind == "pandas":
        return _PandasFrame(feed, inputs)
    if feed.kind == "polars":
        return library("polars").from_arrow  # type: ignore[no-any-return]
    if feed.kind == "texts":
        return lambda records: _texts(records.column(0), none=records.schema.names[0] in feed.nones)
    if feed.kind == "objects":
        return lambda records: _objects(records, feed)
    if feed.kind == "array":
        return _array_of(inputs)
    return _tensor if feed.kind == "tensor" else lambda records: _tensor(records).copy()


def library(name: Literal["pandas", "polars"]) -> Any:
    """The data frame library. Raises ConfigError: it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"the estimator wants a {name} data frame, but {name} is not installed: pip install 'mlinfer[{name}]'"
        raise ConfigError(msg) from error


def is_plain_number(kind: pa.DataType) -> bool:
    """Whether a column of this type can become a column of a numeric matrix."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))


def _tensor(records: pa.RecordBatch) -> np.ndarray:
    column = records.column(0)  # of fixed-size lists, none of them null: `flatten` would look for nulls first
    values = as_numpy(column.values).reshape(-1, column.type.list_size)
    rows = records.num_rows
    return values if len(values) == rows else values[column.offset : column.offset + rows]


def _array_of(inputs: pa.Schema) -> Callable[[pa.RecordBatch], np.ndarray]:
    """A matrix in column order: Arrow fills it by itself when all columns are of one float type."""
    types = set(inputs.types)
    if types in ({pa.float64()}, {pa.float32()}):
        return lambda records: records.to_tensor(null_to_nan=True, row_major=False).to_numpy()
    dtype = np.float32 if types <= {pa.float32(), pa.float16()} else np.float64

    def fill(records: pa.RecordBatch) -> np.ndarray:
        matrix = np.empty((records.num_rows, records.num_columns), dtype, order="F")
        for place, column in enumerate(records.columns):
            matrix[:, place] = as_numpy(column.cast(pa.uint8()) if pt.is_boolean(column.type) else column)
        return matrix

    return fill


def _texts(column: pa.Array, *, none: bool) -> np.ndarray:
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    if column.null_count and not none:
        values[np.asarray(column.is_null())] = np.nan
    return values


def _objects(records: pa.RecordBatch, feed: Feed) -> np.ndarray:
    matrix = np.empty((records.num_rows, records.num_columns), object, order="F")
    for place, name in enumerate(records.schema.names):
        column = records.column(place)
        matrix[:, place] = column.to_pylist()
        if column.null_count and name not in feed.nones:
            matrix[np.asarray(column.is_null()), place] = np.nan
    return matrix


class _PandasFrame:
    """Builds data frames with the column types that the example had."""

    def __init__(self, feed: Feed, inputs: pa.Schema) -> None:
        self._pandas = library("pandas")
        self._columns = [
            (name, feed.dtypes.get(name), name in feed.nones, is_text(kind), pt.is_boolean(kind))
            for name, kind in zip(inputs.names, inputs.types, strict=True)
        ]

    def __call__(self, records: pa.RecordBatch) -> Any:
        """The batch as a data frame."""
        columns = {}
        for place, (name, dtype, none, text, boolean) in enumerate(self._columns):
            column = records.column(place)
            if text and dtype != "category":
                columns[name] = self._text(column, dtype, none=none)
            elif boolean and column.null_count:
                columns[name] = self._boolean(column, dtype)
            else:
                columns[name] = self._other(column, dtype)
        return self._pandas.DataFrame(columns, copy=False)

    def _text(self, column: pa.Array, dtype: str | None, *, none: bool) -> Any:
        return self._pandas.Series(_texts(column, none=none), dtype=object if none else dtype or object)

    def _boolean(self, column: pa.Array, dtype: str | None) -> Any:
        """In pandas, `boolean` can miss values; `bool` cannot and becomes a column of objects, NaN among them."""
        if dtype not in {None, "bool"}:
            return self._pandas.Series(column.to_pylist(), dtype=dtype)
        values = column.to_numpy(zero_copy_only=False)
        values[np.asarray(column.is_null())] = np.nan
        return self._pandas.Series(values, dtype=object)

    def _other(self, column: pa.Array, dtype: str | None) -> Any:
        if dtype == "category" and not pt.is_dictionary(column.type):
            column = column.dictionary_encode()
        series = column.to_pandas()
        if dtype is None or str(series.dtype) == dtype:
            return series
        if column.null_count and pt.is_integer(column.type):
            plain = dtype.startswith(("int", "uint")) and "[" not in dtype
            # numpy's integers cannot miss values: this batch has floats and NaN
            return series if plain else self._pandas.Series(column.to_pylist(), dtype=dtype)
        return series.astype(dtype)
