"""Records to compare two models on: drawn around an example, beyond it, with gaps, and at the very thresholds of trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import finite, is_text
from mlinfer.hosts._feeding import is_plain_number
from mlinfer.hosts._forms._columns import Choice, Column, Number

UNSEEN = "a category that nobody has seen"
GAPS = 0.2
MOST_THRESHOLDS = 4000
SEED = 20131


@dataclass(frozen=True)
class Ground:
    """What questions are drawn from: the fields, an example of at least one record, and what the form looks at.

    `cuts`: the thresholds at each of the form's `columns`. `texts`: what a field of texts may hold beside the example's.
    """

    inputs: pa.Schema
    example: pa.RecordBatch
    columns: Sequence[Column] = ()
    cuts: Mapping[int, np.ndarray] | None = None
    texts: Sequence[str] = ()

    @property
    def tensor(self) -> bool:
        """Whether the only field is a list of numbers."""
        return len(self.inputs) == 1 and bool(pt.is_fixed_size_list(self.inputs.types[0]))

    def fields(self) -> list[pa.Field]:
        """The fields, or the elements of the tensor."""
        if not self.tensor:
            return list(self.inputs)
        field = self.inputs.field(0)
        inner = field.type.value_field
        limits = inner if not _needs_finite(field) else finite(inner)
        return [limits] * field.type.list_size

    def shown(self) -> list[list[Any]]:
        """What the example holds, by field, without gaps."""
        if self.tensor:
            matrix = np.array(self.example.column(0).to_pylist(), float)
            found = [column.tolist() for column in matrix.T]
        else:
            found = [column.to_pylist() for column in self.example.columns]
        return [[v for v in values if v is not None and v == v] for values in found]  # noqa: PLR0124 - NaN is not itself

    def batch(self, columns: Sequence[Any]) -> pa.RecordBatch:
        """Values by field (objects, None for a gap) as a batch."""
        if self.tensor:
            kind = self.inputs.types[0]
            matrix = np.array(columns, float).T
            items = pa.array(matrix.ravel()).cast(kind.value_type, safe=False)
            array = pa.FixedSizeListArray.from_arrays(items, type=kind)
            return pa.RecordBatch.from_arrays([array], schema=self.inputs)
        arrays = [
            pa.array(list(values), field.type, from_pandas=True)
            for values, field in zip(columns, self.inputs, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.inputs)


def questions(ground: Ground, count: int) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Groups of records by name; `count` in each that is drawn at random."""
    rng = np.random.default_rng(SEED)
    draw = _Draw(ground, rng)
    yield "within", ground.batch(draw.records(count, 0))
    yield "beyond", ground.batch(draw.records(count, 2))
    yield "far", ground.batch(draw.records(count // 4, 100))
    if any(field.nullable for field in ground.fields()):
        yield "gaps", ground.batch(draw.records(count, 0.5, gaps=True))
    if ground.cuts:
        yield from (("thresholds", ground.batch(columns)) for columns in draw.thresholds())
    if draw.texts:
        yield "unseen", ground.batch(draw.unseen(count // 10))


class _Draw:
    def __init__(self, ground: Ground, rng: np.random.Generator) -> None:
        self._ground, self._rng = ground, rng
        self._fields, self._shown = ground.fields(), ground.shown()
        for column in ground.columns:
            if isinstance(column, Choice):
                self._shown[column.lookup.place] += column.lookup.categories
        self.texts = [place for place, field in enumerate(self._fields) if is_text(field.type)]
        for place in self.texts:
            self._shown[place] += ground.texts

    def records(self, count: int, beyond: float, *, gaps: bool = False) -> list[np.ndarray]:
        """Columns of `count` values: half of them from the example, half from its range, `beyond` times as wide."""
        return [self._column(place, count, beyond, gaps=gaps) for place in range(len(self._fields))]

    def _column(self, place: int, count: int, beyond: float, *, gaps: bool) -> np.ndarray:
        field, shown = self._fields[place], self._shown[place] or [_stand_in(self._fields[place].type)]
        picked = np.array([*shown, None], object)[self._rng.integers(0, len(shown), count)]
        if pt.is_integer(field.type) or pt.is_floating(field.type):
            low, high = float(min(shown)), float(max(shown))
            reach = beyond * ((high - low) or 1.0)
            drawn = self._rng.uniform(low - reach, high + reach, count)
            fresh = self._rng.random(count) < (0.5 if beyond == 0 else 0.9)
            values = drawn.astype(object)
            if pt.is_integer(field.type):
                limits = np.iinfo(str(field.type))
                values = (
                    np.clip(np.round(drawn), max(limits.min, -(2.0**53)), min(limits.max, 2.0**53))
                    .astype(np.int64)
                    .astype(object)
                )
            picked = np.where(fresh, values, picked)
            if beyond > 2 and pt.is_floating(field.type) and not _needs_finite(field):  # noqa: PLR2004 - far away
                picked[:: len(self._fields) + 7] = np.inf
        if gaps and field.nullable:
            picked[self._rng.random(count) < GAPS] = None
        return picked

    def thresholds(self) -> Iterator[list[np.ndarray]]:
        """Records at, just below and just above each threshold of each column, in float64 and in float32."""
        cuts = self._ground.cuts or {}
        share = min(1.0, MOST_THRESHOLDS / max(1, sum(map(len, cuts.values()))))
        for number, values in cuts.items():
            column = self._ground.columns[number]
            if not isinstance(column, Number) or not pt.is_floating(self._fields[column.place].type):
                continue
            chosen = values[np.isfinite(values) & (self._rng.random(len(values)) < share)]
            at = _before(chosen, column)
            narrow = at.astype(np.float32)
            up, down = np.float32(np.inf), np.float32(-np.inf)
            near = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
            near += [
                near.astype(float) for near in (narrow, np.nextafter(narrow, up), np.nextafter(narrow, down))
            ]
            asked = np.concatenate(near)
            asked = asked[np.isfinite(asked)]
            if len(asked):
                records = self.records(len(asked), 0)
                records[column.place] = asked.astype(object)
                yield records

    def unseen(self, count: int) -> list[np.ndarray]:
        """Records with a category that nobody has seen, in one text field each."""
        count = max(count, len(self.texts))
        records = self.records(count, 0)
        for number, place in enumerate(self.texts):
            records[place][number :: len(self.texts)] = UNSEEN
        return records


def _stand_in(kind: pa.DataType) -> Any:
    """A value for a field of which the example shows none."""
    return 0 if is_plain_number(kind) else "" if is_text(kind) else None


def _before(values: np.ndarray, column: Number) -> np.ndarray:
    """The numbers of the record that become these values, as far as rounding allows."""
    for name, *given in reversed(column.ops):
        if name in {"sub", "add"}:
            values = values + given[0] if name == "sub" else values - given[0]
        elif name in {"div", "mul"}:
            values = values * given[0] if name == "div" else values / given[0]
    return values


def _needs_finite(field: pa.Field) -> bool:
    return bool(field.equals(finite(field), check_metadata=True))
