"""A compiled form: columns, scores and answers, as data that needs numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import ConfigError
from mlinfer.hosts._forms import _file
from mlinfer.hosts._forms._bitmasks import Bitmasks
from mlinfer.hosts._forms._columns import (
    Choice,
    Column,
    Lookup,
    Number,
    Table,
    column_from_json,
    column_to_json,
    table_of,
)
from mlinfer.hosts._forms._linear import Linear
from mlinfer.hosts._forms._links import Link
from mlinfer.hosts._forms._walks import Walks
from mlinfer.hosts._forms._words import Bag, Words

DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


BLOCK_BYTES = 2 * 2**20
"""A matrix of this size is filled and multiplied in the processor's cache, and the allocator has it at hand."""


class Form:
    """What an estimator computes. Its methods take scores, so that several of them share one computation.

    `classes_` and the methods are named as scikit-learn names them; a method that it cannot answer is not there.
    """

    def __init__(self, core: Any, link: Link) -> None:
        self.core, self.link = core, link
        self.methods = link.methods
        if link.classes is not None:
            self.classes_ = link.classes

    def __getattr__(self, name: str) -> Any:
        """`predict`, `predict_proba` or `decision_function`."""
        if name in self.__dict__.get("methods", ()):
            return lambda scores: self.link.answer(name, scores)
        raise AttributeError(name)

    @property
    def name(self) -> str:
        """What it is, for people."""
        return str(self.core.name)

    def scorer(self, inputs: pa.Schema) -> Any:
        """The function that takes batches of this schema to scores."""
        if isinstance(self.core, Words):
            place = self.core.bag.place
            return lambda records: self.core.scores(records.column(place).to_pylist())
        lookups = _lookups(self.core)
        take = table_of(inputs, lookups, _numbers(self.core))

        def scores(records: pa.RecordBatch) -> Any:
            return self.core.scores(take(records))

        plain = isinstance(self.core, Linear) and not lookups and len(inputs) > 1
        return _by_blocks(scores, max(1, BLOCK_BYTES // (8 * len(inputs)))) if plain else scores

    def array_scorer(self, inputs: pa.Schema) -> Callable[[Sequence[np.ndarray]], Any] | None:
        """The same for one array per field, where all of them are float64 and needed as they are; None: they are not."""
        if isinstance(self.core, Words) or _lookups(self.core):
            return None
        if len(inputs) == 1 and pt.is_fixed_size_list(inputs.types[0]):
            if inputs.types[0].value_type != pa.float64():
                return None
            return lambda arrays: self.core.scores(Table(arrays[0]))
        if set(inputs.types) != {pa.float64()}:
            return None
        return lambda arrays: self.core.scores(Table(np.stack(arrays).T))

    def dump(self) -> bytes:
        """As `load` reads it."""
        core = self.core
        if isinstance(core, Words):
            return _file.dump(
                {"link": self.link.to_json(), "lookups": [], "core": "words", "bag": core.bag.to_json()},
                core.arrays,
            )
        lookups = _lookups(core)
        facts: dict[str, Any] = {
            "link": self.link.to_json(),
            "lookups": [[at.place, list(at.categories), at.refuses] for at in lookups],
        }
        if isinstance(core, Linear):
            tables = {f"table_{n}": table for n, (_, table) in enumerate(core.tables)}
            return _file.dump({**facts, "core": "linear"}, {**core.arrays, **tables})
        columns = [column_to_json(column, lookups) for column in core.columns]
        kind = "bitmasks" if isinstance(core, Bitmasks) else "walks"
        return _file.dump({**facts, "core": kind, "columns": columns, "options": core.options}, core.arrays)

    @classmethod
    def load(cls, content: bytes, where: str) -> Form:
        """The form in these bytes. Raises ConfigError: they are damaged."""
        try:
            facts, arrays = _file.load(content)
            lookups = [
                Lookup(int(place), tuple(known), bool(refuses)) for place, known, refuses in facts["lookups"]
            ]
            return cls(_core(facts, arrays, lookups), Link.from_json(facts["link"]))
        except DAMAGE as error:
            msg = f"{where}: wanted a compiled form, found something damaged or foreign ({error}); save the model again"
            raise ConfigError(msg) from error


def _by_blocks(scores: Callable[[pa.RecordBatch], Any], rows: int) -> Callable[[pa.RecordBatch], Any]:
    """The same scores, computed for so many records at a time."""

    def parts(records: pa.RecordBatch) -> Any:
        if records.num_rows <= rows:
            return scores(records)
        starts = range(0, records.num_rows, rows)
        return np.concatenate([scores(records.slice(start, rows)) for start in starts])

    return parts


def _core(facts: dict[str, Any], arrays: dict[str, np.ndarray], lookups: list[Lookup]) -> Any:
    if facts["core"] == "linear":
        tables = [(lookup, arrays.pop(f"table_{n}")) for n, lookup in enumerate(lookups)]
        return Linear(arrays, tables)
    if facts["core"] == "words":
        return Words(Bag.from_json(facts["bag"]), arrays)
    columns: list[Column] = [column_from_json(column, lookups) for column in facts["columns"]]
    if facts["core"] == "bitmasks":
        return Bitmasks(arrays, columns, facts["options"])
    if facts["core"] == "walks":
        return Walks(arrays, columns, facts["options"])
    msg = f"core {facts['core']!r}"
    raise ValueError(msg)


def _lookups(core: Any) -> Sequence[Lookup]:
    if isinstance(core, Linear):
        return [lookup for lookup, _ in core.tables]
    return list(dict.fromkeys(column.lookup for column in core.columns if isinstance(column, Choice)))


def _numbers(core: Any) -> list[int]:
    """The places of the fields that it computes with."""
    if isinstance(core, Linear):
        return [int(place) for place in core.arrays["places"]]
    return [column.place for column in core.columns if isinstance(column, Number)]
