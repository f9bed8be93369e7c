"""From what an estimator returns to columns: decided once, by looking at its answers to the example."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, as_column, is_list

METHODS = {
    "predict": "y_pred",
    "predict_proba": "y_proba",
    "decision_function": "y_score",
    "score_samples": "y_score_samples",
    "transform": "y_transform",
}
"""What an estimator can be asked, and what its answer is called."""

CLASSES = b"mlinfer.classes"
"""The key, in the metadata of a field, of the class labels that its values belong to, as JSON."""

_DTYPES = {pa.float64(): np.dtype(float), pa.int64(): np.dtype(np.int64), pa.bool_(): np.dtype(bool)}

MOST_COLUMNS = 32_768
MOST_CELLS = 2**25  # 256 MiB of float64


@dataclass(frozen=True)
class Answer:
    """One method of an estimator: its output fields, and how what it returns is `cut` into an array for each of them."""

    ask: Callable[[Any], Any]
    fields: tuple[pa.Field, ...]
    cut: Callable[[Any], list[np.ndarray]]

    def columns(self, found: Any) -> list[pa.Array]:
        """What it returned, as columns of Arrow."""
        return [_column(values, field) for values, field in zip(self.cut(found), self.fields, strict=True)]

    def arrays(self, found: Any) -> list[np.ndarray | pa.Array]:
        """The same, in numpy where a column holds numbers or booleans: shape (n,), or (n, k) for lists."""
        each = zip(self.cut(found), self.fields, self._dtypes, strict=True)
        return [_fitted(values, field, dtype) for values, field, dtype in each]

    @cached_property
    def _dtypes(self) -> list[np.dtype | None]:
        kinds = [field.type for field in self.fields]
        return [_DTYPES.get(kind.value_type if is_list(kind) else kind) for kind in kinds]


def answer_of(estimator: Any, method: str, returned: Any, *, expand: bool) -> Answer:
    """The answer that a method gives, seen from what it has `returned` for the example.

    Raises ConfigError: the answer cannot be put into columns.
    """
    name = METHODS[method]
    ask = getattr(estimator, method)
    labels = _labels(estimator, method, returned)
    if has_parts(returned):
        parts = [_one(f"{name}_{n}", part, labels[n], expand=expand) for n, part in enumerate(returned)]
        fields = tuple(field for part, _ in parts for field in part)
        return Answer(
            ask, fields, lambda many: [c for (_, cut), one in zip(parts, many, strict=True) for c in cut(one)]
        )
    fields, cut = _one(name, returned, labels, expand=expand)
    return Answer(ask, fields, cut)


def _labels(estimator: Any, method: str, returned: Any) -> Any:
    """What the columns of an answer with several columns belong to, as far as the estimator says."""
    if method in {"predict_proba", "decision_function"}:
        classes = getattr(estimator, "classes_", None)
        if has_parts(returned):
            return classes if isinstance(classes, list) else [None] * len(returned)
        return None if isinstance(classes, list) else classes
    if has_parts(returned):
        return [None] * len(returned)
    if method == "transform" and hasattr(estimator, "get_feature_names_out"):
        try:
            return np.asarray(estimator.get_feature_names_out(), object)
        except (ValueError, AttributeError, TypeError):  # a step without names: number the columns
            return None
    return None


def _one(
    name: str, returned: Any, labels: Any, *, expand: bool
) -> tuple[tuple[pa.Field, ...], Callable[[Any], list[np.ndarray]]]:
    values = dense(returned)
    if values.ndim == 1:
        return (pa.field(name, _kind(values, name), nullable=False),), lambda found: [dense(found)]
    width = values.shape[1]
    if not width:
        msg = f"answer {name!r}: wanted a column or more, found none (shape {values.shape}); let the estimator keep some"
        raise ConfigError(msg)
    if labels is not None and len(labels) != width:
        labels = None
    if expand:
        return _expanded(name, values, labels)
    kind = _kind(values, name)
    item = pa.field("item", kind, nullable=False)
    listed = pa.list_(item, width)
    known = (
        None
        if labels is None or name == METHODS["transform"]
        else {CLASSES: json.dumps(labels.tolist()).encode()}
    )
    return (pa.field(name, listed, nullable=False, metadata=known),), lambda found: [dense(found)]


def _expanded(
    name: str, values: np.ndarray, labels: Any
) -> tuple[tuple[pa.Field, ...], Callable[[Any], list[np.ndarray]]]:
    width = values.shape[1]
    suffixes = range(width) if labels is None else labels.tolist()
    kinds = [_kind(values[:, place], f"{name}_{suffix}") for place, suffix in enumerate(suffixes)]
    fields = [
        pa.field(f"{name}_{suffix}", kind, nullable=False)
        for suffix, kind in zip(suffixes, kinds, strict=True)
    ]

    def split(found: Any) -> list[np.ndarray]:
        matrix = dense(found)
        return [np.ascontiguousarray(matrix[:, place]) for place in range(width)]

    return tuple(fields), split


def has_parts(returned: Any) -> bool:
    """Whether this is a list of matrices, one for each of several outcomes, and not of what each record is answered."""
    return isinstance(returned, list) and bool(returned) and len(getattr(returned[0], "shape", ())) > 1


def dense(returned: Any) -> np.ndarray:
    """An answer as an array of one or two dimensions; frames and sparse matrices included.

    Raises ConfigError: it has more columns than can be delivered; MemoryError: it is too large, ask for fewer records.
    """
    if type(returned) is np.ndarray and returned.ndim <= 2 and returned.dtype.kind not in "mM":  # noqa: PLR2004 - a matrix
        return returned
    if hasattr(returned, "toarray"):
        rows, width = returned.shape
        if width > MOST_COLUMNS:
            msg = (
                f"wanted an answer of at most {MOST_COLUMNS:,} columns, found a sparse matrix of {width:,}; "
                "reduce it in the pipeline (TruncatedSVD, SelectKBest)"
            )
            raise ConfigError(msg)
        if rows * width > MOST_CELLS:
            msg = f"a sparse answer of {rows:,} x {width:,} values is too large to be written out in full"
            raise MemoryError(msg)
        returned = returned.toarray()
    values = _unmasked(returned) if isinstance(returned, np.ma.MaskedArray) else np.asarray(returned)
    if values.dtype.kind in "mM":
        values = _in_units_of_arrow(values)
    return values if values.ndim <= 2 else values.reshape(len(values), -1)  # noqa: PLR2004 - a matrix


def _in_units_of_arrow(times: np.ndarray) -> np.ndarray:
    """Numpy has units of which Arrow has none: years, weeks, hours, ten minutes."""
    kind, (unit, _) = times.dtype.kind, np.datetime_data(times.dtype)
    if kind == "M" and unit in {"Y", "M", "W", "D"}:
        unit = "D"
    elif unit in {"W", "D", "h", "m"}:
        unit = "s"
    return times.astype(f"{kind}8[{unit}]", copy=False)


def _unmasked(found: np.ma.MaskedArray) -> np.ndarray:
    """With nothing where it is masked, for below the mask may lie anything."""
    there, kind = ~np.ma.getmaskarray(found), found.dtype.kind
    if kind == "f":
        return np.where(there, found.data, np.nan)
    if kind in "mM":
        return np.where(there, found.data, np.array("NaT", found.dtype))
    values = found.data.astype(object)
    values[~there] = None
    return values


def _kind(values: np.ndarray, name: str) -> pa.DataType:
    """One type for all numbers with a point, one for all without."""
    known = {"f": pa.float64(), "i": pa.int64(), "u": pa.int64(), "b": pa.bool_(), "U": pa.string()}
    if values.dtype.kind in "mM":  # of nanoseconds, `tolist` makes bare integers
        try:
            return pa.from_numpy_dtype(values.dtype)
        except pa.ArrowNotImplementedError as error:
            msg = f"answer {name!r}: wanted times in days, seconds or parts of a second down to nanoseconds, found {values.dtype}"
            raise ConfigError(msg) from error
    if values.dtype.kind in known:
        return known[values.dtype.kind]
    try:
        found = pa.array(values.ravel().tolist()).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        msg = f"answer {name!r}: wanted values of one type, found {_types(values)}; expand=True gives each its own column"
        raise ConfigError(msg) from error
    if pa.types.is_null(found) or pa.types.is_nested(found):
        msg = f"answer {name!r}: wanted numbers, strings or booleans, found {_types(values)}"
        raise ConfigError(msg)
    return found


def _types(values: np.ndarray) -> str:
    return ", ".join(sorted({type(value).__name__ for value in values.ravel()[:1000].tolist()}))


def _fitted(values: np.ndarray, field: pa.Field, dtype: np.dtype | None) -> np.ndarray | pa.Array:
    """Numbers as those of the field; a column where that is more than to widen them."""
    if dtype is not None:  # before it is compared: to numpy None is float64
        if values.dtype == dtype:
            return values
        if values.dtype.kind == dtype.kind and np.can_cast(values.dtype, dtype):
            return values.astype(dtype)
    return _column(values, field)


def _column(values: np.ndarray, field: pa.Field) -> pa.Array:
    if values.ndim == 2:  # noqa: PLR2004 - a matrix, for a list in each record
        flat = np.ascontiguousarray(values).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(_column(flat, field.type.value_field), type=field.type)
    if values.dtype.kind == "O":
        return pa.array(values, field.type, from_pandas=True)
    if values.dtype.kind == "f" and values.dtype.itemsize > np.dtype(np.float64).itemsize:
        values = values.astype(np.float64)  # Arrow knows no longer ones
    array = as_column(values, field)
    return array if array.type == field.type else array.cast(field.type)


def asked(method: str | Sequence[str] | None) -> tuple[str, ...]:
    """The methods as a tuple. Raises ConfigError: one is unknown."""
    given = [method] if isinstance(method, str) else ["predict"] if method is None else method
    methods = (tuple(given) or ("predict",)) if isinstance(given, list | tuple) else ()
    known = all(isinstance(name, str) and name in METHODS for name in methods)
    if not methods or not known or len(set(methods)) != len(methods):
        msg = f"method: wanted one or several of {', '.join(METHODS)}, found {method!r}"
        raise ConfigError(msg)
    return methods
