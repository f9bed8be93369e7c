"""What an estimator reads: seen from an example, and from how it takes the example with values missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError, finite, is_text
from mlinfer.hosts._answers_of import METHODS, Answer, answer_of, dense, has_parts
from mlinfer.hosts._example import Example
from mlinfer.hosts._feeding import Feed, feeder
from mlinfer.hosts._unnamed import unnamed

REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What estimators raise at data that they cannot take."""

NAMES_WARNING = "feature names"
CLOSE = 1e-6


@dataclass(frozen=True)
class Study:
    """What was found out about an estimator: its fields, how it is fed and how it answers."""

    inputs: pa.Schema
    feed: Feed
    answers: tuple[Answer, ...]

    @property
    def outputs(self) -> pa.Schema:
        """The fields of all its answers."""
        return pa.schema([field for answer in self.answers for field in answer.fields])


def study(estimator: Any, example: Example, methods: Sequence[str], *, expand: bool) -> Study:
    """Find out how to feed an estimator, and which fields may miss a value or be infinite.

    Asks the estimator for the example, and once more per column that it might take without a value. Raises ConfigError:
    it cannot answer its own example.
    """
    others = [name for name in METHODS if name not in methods and hasattr(estimator, name)]
    feed, returned = _choose(estimator, example, methods, others)
    fed = fed_by(estimator, feed)
    answers = answers_of(fed, methods, returned, expand=expand)
    asks = [answer.ask for answer in answers]
    inputs, feed = _Probe(feed, asks, example.batch, lambda data: _said_by(fed, others, data)).fields()
    return Study(inputs, feed, answers)


def fed_by(estimator: Any, feed: Feed) -> Any:
    """The estimator to ask: one that is fed a matrix must not know names."""
    return estimator if feed.kind in {"pandas", "polars", "texts"} else unnamed(estimator)


def returned_by(fed: Any, methods: Sequence[str], feed: Feed, batch: pa.RecordBatch) -> list[Any]:
    """What the methods of `fed_by(estimator, feed)` return for a batch, without a word."""
    returned, _ = _ask_quietly(fed, methods, feeder(feed, batch.schema)(batch))
    return returned


def answers_of(
    estimator: Any, methods: Sequence[str], returned: Sequence[Any], *, expand: bool
) -> tuple[Answer, ...]:
    """One answer per method, seen from what each has returned."""
    return tuple(
        answer_of(estimator, method, found, expand=expand)
        for method, found in zip(methods, returned, strict=True)
    )


def _choose(
    estimator: Any, example: Example, methods: Sequence[str], others: Sequence[str]
) -> tuple[Feed, list[Any]]:
    """The first way to feed it that gives the answers that the example itself gives, those of `others` included."""
    reference: list[Any] | None = None
    problem: Exception | None = None
    second: tuple[Feed, list[Any]] | None = None
    if example.native is not None:
        try:
            reference, _ = _ask_quietly(estimator, methods, example.native())
            reference += _said_by(estimator, others, example.native)
        except REFUSALS as error:
            problem = error
    for feed in example.feeds() if problem is None else ():
        try:
            data = feeder(feed, example.batch.schema)(example.batch)
            returned, clean = _ask_quietly(fed_by(estimator, feed), methods, data)
            said = [*returned, *_said_by(fed_by(estimator, feed), others, _made(feed, example.batch))]
        except (*REFUSALS, ConfigError) as error:
            # a missing library explains the rest
            problem = problem if isinstance(problem, ConfigError) else error
            continue
        if _rows(returned) != example.batch.num_rows or (
            reference is not None and not alike(said, reference)
        ):
            continue
        if reference is None:
            _check_gaps(estimator, example, (*methods, *others), feed)
        if clean:
            return feed, returned
        second = second or (feed, returned)
    if second is not None:
        return second
    if isinstance(problem, ConfigError):
        raise problem
    msg = (
        f"{type(estimator).__name__}: wanted an estimator that answers its example ({example}), found "
        f"{_first_line(problem)}; give example= as the data that it was fitted on, without the target"
    )
    raise ConfigError(msg) from problem


def _check_gaps(estimator: Any, example: Example, methods: Sequence[str], chosen: Feed) -> None:
    """Raises ConfigError: the answers depend on how a missing text is written, and the example does not show it."""
    fed = fed_by(estimator, chosen)
    ways = [feed for feed in example.feeds() if feed.kind == chosen.kind]
    said = [_said_by(fed, methods, _made(feed, example.batch)) for feed in ways]
    if any(not alike(one, said[ways.index(chosen)]) for one in said if all(map(len, one))):
        msg = (
            f"{type(estimator).__name__}: wanted an example that shows how a missing text was written when it was fitted (None "
            "or NaN; it answers them differently), found one of another form; give example= as the data frame that it was fitted on"
        )
        raise ConfigError(msg)


def _made(feed: Feed, batch: pa.RecordBatch) -> Callable[[], Any]:
    return lambda: feeder(feed, batch.schema)(batch)


def _said_by(fed: Any, methods: Sequence[str], data: Callable[[], Any]) -> list[Any]:
    """What these methods answer, each asked of data of its own; empty for one that refuses."""
    found: list[Any] = []
    for name in methods:
        try:
            found += _parts(_ask_quietly(fed, [name], data())[0])
        except (*REFUSALS, ConfigError, MemoryError):
            found.append(np.empty(0))
    return found


def _first_line(problem: Exception | None) -> str:
    if problem is None:
        return "other answers than it gives by itself"
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0]}"


def _ask_quietly(estimator: Any, methods: Sequence[str], data: Any) -> tuple[list[Any], bool]:
    """The answers, and whether it did not complain about names."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        returned = [getattr(estimator, method)(data) for method in methods]
    return returned, not any(NAMES_WARNING in str(one.message) for one in said)


def _parts(returned: Sequence[Any]) -> Iterator[np.ndarray]:
    for found in returned:
        yield from (dense(part) for part in found) if has_parts(found) else [dense(found)]


def _rows(returned: Sequence[Any]) -> int:
    try:
        counts = {len(part) if part.ndim else -1 for part in _parts(returned)}
    except ValueError:  # numpy's, for lists of several lengths
        return -1
    return counts.pop() if len(counts) == 1 else -1


def alike(returned: Sequence[Any], reference: Sequence[Any]) -> bool:
    """Whether answers are the same, but for the last digits."""
    ones, others = list(_parts(returned)), list(_parts(reference))
    return len(ones) == len(others) and all(
        one.shape == other.shape
        and (
            np.allclose(one, other, rtol=CLOSE, atol=CLOSE, equal_nan=True)
            if one.dtype.kind == other.dtype.kind == "f"
            else bool(np.all((one == other) | ((one != one) & (other != other))))  # noqa: PLR0124 - NaN is not itself
        )
        for one, other in zip(ones, others, strict=True)
    )


class _Probe:
    """Takes values away from the example and looks whether finite answers still come."""

    def __init__(
        self,
        feed: Feed,
        asks: Sequence[Callable[[Any], Any]],
        batch: pa.RecordBatch,
        more: Callable[[Any], Any],
    ) -> None:
        """`more`: what else the estimator says of data that is made anew for each of its methods."""
        self._feed, self._asks, self._batch, self._more = feed, asks, batch, more

    def fields(self) -> tuple[pa.Schema, Feed]:
        """The fields with what they allow, and the feed with how a missing value is given."""
        schema = self._batch.schema
        if self._feed.kind.endswith("tensor"):
            return pa.schema([self._tensor(schema.field(0))]), self._feed
        without_nulls = self._all_at_once(np.nan)
        fields = []
        for place, field in enumerate(schema):
            nullable = without_nulls or self._takes_null(place, field)
            new = field.with_nullable(nullable)
            fields.append(
                finite(new) if pt.is_floating(field.type) and not self._takes_infinity(place) else new
            )
        return pa.schema(fields), self._feed

    def _all_at_once(self, value: float) -> bool:
        """Whether a matrix may hold the value in any column: row n holds it in column n, one question for them all."""
        if self._feed.kind != "array":
            return False
        matrix = feeder(self._feed, self._batch.schema)(self._batch)
        return self._works(lambda: _diagonal(matrix, value))

    def _takes_null(self, place: int, field: pa.Field) -> bool:
        if self._lacks_some(place):
            return True
        works, nan = self._null_works(place, field), self._feed
        written = nan.kind == "pandas" and nan.dtypes.get(field.name) not in {None, "object"}
        if (
            nan.kind not in {"pandas", "objects", "texts"}
            or not is_text(field.type)
            or (works and written)  # this type of column knows no None
        ):
            return works
        none = replace(nan, nones=(*nan.nones, field.name))
        self._feed = none
        if not self._null_works(place, field):
            self._feed = nan
            return works
        if not works:
            return True
        self._feed = nan
        missing = self._with(place, pa.nulls(self._batch.num_rows, field.type))
        return alike(self._all_said(nan, missing), self._all_said(none, missing))

    def _all_said(self, feed: Feed, batch: pa.RecordBatch) -> list[Any]:
        make = _made(feed, batch)
        return [*(ask(make()) for ask in self._asks), *self._more(make)]

    def _null_works(self, place: int, field: pa.Field) -> bool:
        """With the value missing everywhere (as it is in a batch of one), and in every other record."""
        column = self._batch.column(place)
        odd = pa.array(np.arange(len(column)) % 2 == 1)
        import pyarrow.compute as pc

        half = pc.if_else(odd, column, pa.scalar(None, field.type))
        return all(self._replaced(place, values) for values in (pa.nulls(len(column), field.type), half))

    def _lacks_some(self, place: int) -> bool:
        """Whether the example itself has no value somewhere in this column; it has been answered."""
        column = self._batch.column(place)
        values = column.flatten() if pt.is_fixed_size_list(column.type) else column
        return bool(values.is_null(nan_is_null=pt.is_floating(values.type)).true_count)

    def _takes_infinity(self, place: int) -> bool:
        column = self._batch.column(place)
        signs = np.where(np.arange(len(column)) % 2 == 0, np.inf, -np.inf)
        return self._replaced(place, pa.array(signs).cast(column.type))

    def _replaced(self, place: int, column: pa.Array) -> bool:
        return self._works(_made(self._feed, self._with(place, column)))

    def _with(self, place: int, column: pa.Array) -> pa.RecordBatch:
        columns = [*self._batch.columns]
        columns[place] = column
        return pa.RecordBatch.from_arrays(columns, schema=self._batch.schema)

    def _tensor(self, field: pa.Field) -> pa.Field:
        """A list of numbers: all of them may be missing, or none."""
        size, kind = field.type.list_size, field.type.value_type
        matrix = feeder(self._feed, self._batch.schema)(self._batch)
        numbers = pt.is_floating(kind)
        nan = numbers and (self._lacks_some(0) or self._works(lambda: _diagonal(matrix, np.nan)))
        new = pa.field(field.name, pa.list_(pa.field("item", kind, nullable=nan), size), nullable=False)
        return finite(new) if numbers and not self._works(lambda: _diagonal(matrix, np.inf)) else new

    def _works(self, data: Callable[[], Any]) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fed = data()
                returned = [ask(fed) for ask in self._asks]
                return all(
                    part.dtype.kind != "f" or bool(np.isfinite(part).all()) for part in _parts(returned)
                )
        except REFUSALS:
            return False


def _diagonal(matrix: np.ndarray, value: float) -> np.ndarray:
    """The first row as often as there are columns, with the value in another column each time."""
    many = np.repeat(matrix[:1], matrix.shape[1], axis=0)
    np.fill_diagonal(many, value)
    return many
