"""`POST /predict`: records as JSON objects by column name, answers as objects by column name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._answering import numbered, rows_batch
from mlinfer._arrays import from_floats, from_numpy, from_values
from mlinfer._batch import Batch
from mlinfer._engine import Answers
from mlinfer._json_few import json_rows, number_rows
from mlinfer._online._bulk import Bulk
from mlinfer._online._desk import Ask, Caller, Desk
from mlinfer._online._json import BadJson, dump, parse
from mlinfer._online._numbers import lift
from mlinfer._online._refusals import MOST_UNASKED
from mlinfer._online._routes import Order
from mlinfer._online._wire import JSON, MOST_ROWS, Refused
from mlinfer._text import shown

_UNSPELLABLE = re.compile(r'[\\"\x00-\x1f]')
"""What a name must not hold, or the decoder cannot look for it."""
LARGEST_EXACT = 2**53
"""From here on an integer may have no float of its own: in a list, only the thorough way tells it from a float."""


class Predict:
    """Reads a request in one of two ways that give the same: typed, which is quick, and by hand, which can say what is wrong."""

    def __init__(self, desk: Desk, wanted: pa.Schema) -> None:
        self._desk = desk
        self._fields = len(wanted)
        self._names, self._bulk = frozenset(wanted.names), Bulk(wanted, apart=False)
        self._quick, self._general = Columns(wanted), Rows(wanted)

    def __call__(self, order: Order, body: bytes) -> None:
        """Ask the model. Raises Refused."""
        self._bulk.check(body)
        order.ask = self._quickly(order, body) or self._thoroughly(order, body)
        self._desk.put(order.ask, order.within)

    def _quickly(self, order: Order, body: bytes) -> Ask | None:
        found = self._quick.read(body)
        if found is None:
            return None
        count = len(found.structs)
        if not 0 < count <= MOST_ROWS or body.count(b":") != count * self._fields:
            return None  # more colons than fields: a text with a colon, or a key twice
        return Ask(self._quick, found, count, order)

    def _thoroughly(self, order: Order, body: bytes) -> Ask:
        rows, single = rows_of(body)
        unasked: dict[str, None] = {}
        rows = [self._known(row, unasked) if isinstance(row, dict) else row for row in rows]
        return Ask(
            self._general, Given(rows, single), len(rows), Misnamed(order, unasked) if unasked else order
        )

    def _known(self, row: dict[str, Any], unasked: dict[str, None]) -> dict[str, Any]:
        """A record without what nobody asked for, which may be much; a few names of that, if it lacks what was."""
        if row.keys() <= self._names:
            return row
        if len(unasked) < MOST_UNASKED and not row.keys() >= self._names:
            unasked.update(
                dict.fromkeys(islice((name for name in row if name not in self._names), MOST_UNASKED))
            )
        return {name: row[name] for name in row if name in self._names}


class Misnamed:
    """The way back for records with names that nobody asked for: where a value is missing, it may be under one of them."""

    def __init__(self, caller: Caller, unasked: Iterable[str]) -> None:
        self._caller, self._unasked = caller, unasked

    @property
    def trace(self) -> str | None:
        """The caller's."""
        return self._caller.trace

    @property
    def alone(self) -> bool:
        """Whether the caller is."""
        return self._caller.alone

    def answer(self, data: bytes, kind: str = JSON, more: tuple[str, ...] = ()) -> None:
        """Give the answer."""
        self._caller.answer(data, kind, more)

    def refuse(self, refused: Refused) -> None:
        """Say what was found, too."""
        if "missing_value" in (refused.kinds or ()):
            names = ", ".join(shown(name) for name in islice(self._unasked, MOST_UNASKED))
            told = json.loads(refused.data)
            told["error"] += f"; no field is called {names}: /openapi.json has the names"
            refused = refused.anew()
            refused.data = dump(told)
        self._caller.refuse(refused)


class Given(NamedTuple):
    """The records of a request, dicts or structs; whether it is `single`, without a list around it; numbers taken out of them."""

    structs: list[Any]
    single: bool
    numbers: np.ndarray | None = None


class Rows:
    """Records as dicts of whatever JSON can hold."""

    def __init__(self, wanted: pa.Schema) -> None:
        self._wanted = wanted

    def arrays(self, asks: Sequence[Ask]) -> Mapping[str, np.ndarray] | None:
        """None: these are objects."""
        del asks
        return None

    def batch(self, asks: Sequence[Ask]) -> Batch:
        """Columns, and the rows that fit into none."""
        return rows_batch([row for ask in asks for row in ask.content.structs], self._wanted)

    def answer(self, asks: Sequence[Ask], answers: Answers) -> None:
        """One object for a single record, a list for a list."""
        found = answers.answered
        texts = None if isinstance(found, Batch) else number_rows(found.columns, found.rows)
        texts = texts or json_rows(answers.batch.records)
        start = 0
        for ask in asks:
            text = texts[start] if ask.content.single else f"[{','.join(texts[start : start + ask.rows])}]"
            start += ask.rows
            ask.caller.answer(text.encode())


class Columns(Rows):
    """Records as structs, every field of which has its type and a value.

    Where just one field is a list of numbers, its numbers come in one piece, and the structs have empty lists there.
    """

    def __init__(self, wanted: pa.Schema) -> None:
        super().__init__(wanted)
        self._typed = typed_decoder(wanted)
        vectors = [place for place, field in enumerate(wanted) if _is_vector(field.type)]
        self._vector = vectors[0] if len(vectors) == 1 and self._typed is not None else None
        if self._vector is not None:
            self._key = wanted.field(self._vector).name.encode()
            self._size = wanted.field(self._vector).type.list_size
            self._bare: Any = typed_decoder(wanted, bare=self._vector)
        self._columns = [
            None if place == self._vector else (attrgetter(f"f{place}"), _maker(field.type))
            for place, field in enumerate(wanted)
        ]

    def read(self, body: bytes) -> Given | None:
        """The records of a body; None: they are of another kind, or not plainly right."""
        if self._typed is None:
            return None
        try:
            if self._vector is None:
                return _given(self._typed(body))
            lifted = lift(body, self._key)
            if lifted is None:
                found = _given(self._typed(body))
                lists = map(attrgetter(f"f{self._vector}"), found.structs)
                return found._replace(numbers=_flat(lists))
            found = _given(self._bare(lifted.text))
        except (ValueError, RecursionError):  # whatever it is, the thorough way says it better
            return None
        if lifted.lists != len(found.structs) or lifted.length != self._size:
            return None
        return Given(found.structs, found.single, lifted.numbers)

    def arrays(self, asks: Sequence[Ask]) -> Mapping[str, np.ndarray] | None:
        """The numbers, where there is nothing else in a record."""
        if self._vector is None or len(self._wanted) > 1:
            return None
        return {self._wanted.names[0]: self._numbers(asks).reshape(-1, self._size)}

    def batch(self, asks: Sequence[Ask]) -> Batch:
        """Columns of the types wanted."""
        structs = [struct for ask in asks for struct in ask.content.structs]
        columns = [
            self._joined(place, asks) if made is None else made[1](list(map(made[0], structs)))
            for place, made in enumerate(self._columns)
        ]
        return numbered(pa.RecordBatch.from_arrays(columns, schema=self._wanted))

    def _joined(self, place: int, asks: Sequence[Ask]) -> pa.Array:
        numbers = from_numpy(self._numbers(asks))
        return pa.FixedSizeListArray.from_arrays(numbers, type=self._wanted.field(place).type)

    @staticmethod
    def _numbers(asks: Sequence[Ask]) -> np.ndarray:
        parts = [ask.content.numbers for ask in asks]
        found: np.ndarray = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return found


def _given(found: Any) -> Given:
    single = not isinstance(found, list)
    return Given([found] if single else found, single)


def rows_of(body: bytes) -> tuple[list[Any], bool]:
    """The records of a body, and whether it is a single one. Raises Refused."""
    try:
        value = parse(body)
    except BadJson as error:
        raise Refused(400, str(error)) from error
    if isinstance(value, dict):
        return [value], True
    if not isinstance(value, list) or not value:
        raise Refused(400, "wanted a record (an object with named fields) or a list of records")
    if len(value) > MOST_ROWS:
        raise Refused(413, f"wanted at most {MOST_ROWS:,} records in a request")
    return value, False


def typed_decoder(wanted: pa.Schema, *, bare: int | None = None) -> Callable[[bytes], Any] | None:
    """Decodes JSON into structs with a field `f0`, `f1`, ... for each column; None if some column is of another kind.

    The `bare` one is a list without elements. It raises ValueError for everything that is not a record, or a list of records,
    with a value of the right type in every field.
    """
    import msgspec

    kinds = [_python_type(field.type) for field in wanted]
    if not kinds or None in kinds or any(_UNSPELLABLE.search(name) for name in wanted.names):
        return None
    if bare is not None:
        kinds[bare] = Annotated[list[float], msgspec.Meta(max_length=0)]
    fields = [(f"f{number}", kind) for number, kind in enumerate(kinds) if kind is not None]
    names = {f"f{number}": field.name for number, field in enumerate(wanted)}
    record = msgspec.defstruct("Record", fields, rename=names, gc=False)
    return msgspec.json.Decoder(record | list[record]).decode  # type: ignore[valid-type]


def _python_type(kind: pa.DataType) -> Any:
    from msgspec import Meta

    if pt.is_float64(kind):
        return float
    if pt.is_int64(kind):  # the thorough way refuses the others by their row
        return Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    if pt.is_string(kind):
        return str
    if _is_vector(kind):
        number = Annotated[float, Meta(gt=-LARGEST_EXACT, lt=LARGEST_EXACT)]
        return Annotated[list[number], Meta(min_length=kind.list_size, max_length=kind.list_size)]
    return bool if pt.is_boolean(kind) else None


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pt.is_fixed_size_list(kind)) and pt.is_float64(kind.value_type) and kind.list_size > 0


def _maker(kind: pa.DataType) -> Callable[[list[Any]], pa.Array]:
    """Makes a column of values that a typed decoder gave."""
    if pt.is_float64(kind):
        return lambda values: from_numpy(from_floats(values))
    if _is_vector(kind):
        return lambda values: pa.FixedSizeListArray.from_arrays(from_numpy(_flat(values)), type=kind)
    return from_values


def _flat(lists: Iterable[list[float]]) -> np.ndarray:
    return from_floats(list(chain.from_iterable(lists)))
