"""Reads scikit-learn's transformers: what each does to columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer import is_text
from mlinfer.hosts._feeding import is_plain_number
from mlinfer.hosts._forms._columns import Choice, Lookup, Number
from mlinfer.hosts._forms._source import NotCompiled, Source
from mlinfer.hosts._forms._vectorizers import Weighted, counts, tfidf, weighted


def after(transformer: Any, columns: Sequence[Any]) -> list[Any]:
    """The columns that a fitted transformer makes of these. Raises NotCompiled."""
    if transformer is None or transformer == "passthrough":
        return list(columns)
    read = READERS.get(type(transformer).__name__)
    if read is not None and type(transformer).__module__.startswith("sklearn."):
        return list(read(transformer, columns))
    if hasattr(transformer, "get_support") and hasattr(transformer, "transform"):  # selectors of every kind
        kept = transformer.get_support()
        if len(columns) == 1 and isinstance(columns[0], Weighted):
            return [columns[0].chosen(kept)]
        return [column for column, chosen in zip(columns, kept, strict=True) if chosen]
    msg = f"{type(transformer).__name__} has no compiled form"
    raise NotCompiled(msg)


def _pipeline(pipeline: Any, columns: Sequence[Any]) -> list[Any]:
    for _, step in pipeline.steps:
        columns = after(step, columns)
    return list(columns)


def _column_transformer(many: Any, columns: Sequence[Any]) -> list[Any]:
    if many.transformer_weights:
        msg = "a ColumnTransformer with weights has no compiled form"
        raise NotCompiled(msg)
    found: list[Any] = []
    for name, transformer, _ in many.transformers_:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        places = many._transformer_to_input_indices[name]  # noqa: SLF001 - the only place that knows positions for names
        found += after(transformer, [columns[place] for place in places]) if len(places) else []
    return found


def _union(union: Any, columns: Sequence[Any]) -> list[Any]:
    if union.transformer_weights:
        msg = "a FeatureUnion with weights has no compiled form"
        raise NotCompiled(msg)
    return [column for _, step in union.transformer_list if step != "drop" for column in after(step, columns)]


def _each(name: str) -> Any:
    """A scaler: the same operations for every column, with numbers of its own."""

    def read(scaler: Any, columns: Sequence[Any]) -> list[Any]:
        return [number(column).then(*SCALERS[name](scaler, place)) for place, column in enumerate(columns)]

    return read


def number(column: Any) -> Any:
    """A column as numbers. Raises NotCompiled: it holds texts."""
    if isinstance(column, Weighted):
        msg = "words beside other columns, or before anything but a linear model, have no compiled form"
        raise NotCompiled(msg)
    if not isinstance(column, Source):
        return column
    if column.is_text:
        msg = f"the texts of {column.name!r} are used in a way that has no compiled form"
        raise NotCompiled(msg)
    if not is_plain_number(column.type) or isinstance(column.fill, str):
        msg = f"{column.name!r}: {column.type} as numbers have no compiled form"
        raise NotCompiled(msg)
    return Number(column.place, () if column.fill is None else (("fill", float(column.fill)),))


def _standard(scaler: Any, place: int) -> list[Any]:
    ops: list[Any] = [("sub", float(scaler.mean_[place]))] if scaler.with_mean else []
    return [*ops, ("div", float(scaler.scale_[place]))] if scaler.with_std else ops


def _robust(scaler: Any, place: int) -> list[Any]:
    ops: list[Any] = [("sub", float(scaler.center_[place]))] if scaler.with_centering else []
    return [*ops, ("div", float(scaler.scale_[place]))] if scaler.with_scaling else ops


def _min_max(scaler: Any, place: int) -> list[Any]:
    ops: list[Any] = [("mul", float(scaler.scale_[place])), ("add", float(scaler.min_[place]))]
    return [*ops, ("clip", *map(float, scaler.feature_range))] if scaler.clip else ops


def _max_abs(scaler: Any, place: int) -> list[Any]:
    clip = [("clip", -1.0, 1.0)] if getattr(scaler, "clip", False) else []
    return [("div", float(scaler.scale_[place])), *clip]


def _imputer(imputer: Any, columns: Sequence[Any]) -> list[Any]:
    fills = imputer.statistics_.tolist()
    marked = [] if imputer.indicator_ is None else imputer.indicator_.features_.tolist()
    texts = any(isinstance(column, Source) and column.is_text for column in columns)
    if any(value is None or value != value for value in fills) or (texts and marked):  # noqa: PLR0124 - NaN is not itself
        msg = "a SimpleImputer with empty columns, or that marks missing texts, has no compiled form"
        raise NotCompiled(msg)
    missing = imputer.missing_values
    if not (missing is None or (isinstance(missing, float) and math.isnan(missing))):
        msg = f"a SimpleImputer for {missing!r} has no compiled form"
        raise NotCompiled(msg)
    if texts:
        return [_filled(column, value) for column, value in zip(columns, fills, strict=True)]
    numbers = [number(column) for column in columns]
    filled = [column.then(("fill", float(value))) for column, value in zip(numbers, fills, strict=True)]
    return [*filled, *(numbers[place].then(("isnan",)) for place in marked)]


def _filled(column: Any, value: Any) -> Any:
    """A field stays one, so that it may still be looked up."""
    return column.filled(value) if isinstance(column, Source) else column.then(("fill", float(value)))


def _one_hot(encoder: Any, columns: Sequence[Any]) -> list[Any]:
    if encoder._infrequent_enabled:  # noqa: SLF001 - the encoder's own word for it
        msg = "a OneHotEncoder that groups infrequent categories has no compiled form"
        raise NotCompiled(msg)
    dropped = [None] * len(columns) if encoder.drop_idx_ is None else encoder.drop_idx_.tolist()
    found: list[Any] = []
    for column, categories, drop in zip(columns, encoder.categories_, dropped, strict=True):
        lookup, places = looked_up(column, categories, refuses=encoder.handle_unknown == "error")
        width = len(lookup.categories) + 2
        for place in range(len(categories)):
            if place != drop:
                values = [float(places[code] == place) for code in range(width)]
                found.append(Choice(lookup, tuple(values)))
    return found


def _ordinal(encoder: Any, columns: Sequence[Any]) -> list[Any]:
    if getattr(encoder, "_infrequent_enabled", False):
        msg = "an OrdinalEncoder that groups infrequent categories has no compiled form"
        raise NotCompiled(msg)
    unknown = None if encoder.handle_unknown == "error" else float(encoder.unknown_value)
    absent = float(encoder.encoded_missing_value)
    found: list[Any] = []
    for column, categories in zip(columns, encoder.categories_, strict=True):
        lookup, places = looked_up(column, categories, refuses=unknown is None)
        codes = [float(place) if place >= 0 else math.nan for place in places]
        known = len(lookup.categories)
        if unknown is not None:
            codes[known + 1] = unknown
            codes[known] = unknown if places[known] < 0 else codes[known]
        codes = [
            absent if place >= 0 and empty(categories[place]) else code
            for place, code in zip(places, codes, strict=True)
        ]
        found.append(Choice(lookup, tuple(codes)))
    return found


def looked_up(column: Any, categories: Any, *, refuses: bool) -> tuple[Lookup, list[int]]:
    """The lookup of a field, and where each of its codes stands among an encoder's categories (-1: nowhere).

    Raises NotCompiled: it is no field any more, or its categories are neither texts nor whole numbers.
    """
    if not isinstance(column, Source) or not (
        column.is_text or pt.is_integer(column.type) or pt.is_boolean(column.type)
    ):
        msg = "categories that are neither texts nor whole numbers have no compiled form"
        raise NotCompiled(msg)
    listed = categories.tolist()
    there = [value for value in listed if not empty(value)]
    place = {value: n for n, value in enumerate(listed) if not empty(value)}
    gap = next((n for n, value in enumerate(listed) if empty(value)), -1)
    if column.fill is not None:
        gap = place.get(column.fill, -1)
    if is_text(column.type) and not all(isinstance(value, str) for value in there):
        msg = f"the categories of {column.name!r} are of several types"
        raise NotCompiled(msg)
    try:
        pa.array(there, column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        msg = f"the categories of {column.name!r} are not all of the type {column.type}"
        raise NotCompiled(msg) from error
    return Lookup(column.place, tuple(there), refuses), [*(place[value] for value in there), gap, -1]


def empty(value: Any) -> bool:
    """None and NaN."""
    return value is None or value != value  # noqa: PLR0124 - NaN is not itself


def _identity(transformer: Any, columns: Sequence[Any]) -> list[Any]:
    if transformer.func is not None:
        msg = "a FunctionTransformer has no compiled form"
        raise NotCompiled(msg)
    return list(columns)


SCALERS = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MinMaxScaler": _min_max,
    "MaxAbsScaler": _max_abs,
}
READERS: dict[str, Any] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _union,
    "SimpleImputer": _imputer,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "FunctionTransformer": _identity,
    "CountVectorizer": counts,
    "TfidfTransformer": weighted,
    "TfidfVectorizer": tfidf,
    **{name: _each(name) for name in SCALERS},
}


def sources(inputs: Any) -> list[Source]:
    """The columns that an estimator is given: the fields, or the elements of the only one."""
    if len(inputs) == 1 and pt.is_fixed_size_list(inputs.types[0]):
        kind = inputs.types[0]
        return [
            Source(place, f"{inputs.names[0]}[{place}]", kind.value_type) for place in range(kind.list_size)
        ]
    return [Source(place, field.name, field.type) for place, field in enumerate(inputs)]
