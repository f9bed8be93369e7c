"""A compiled form: columns, scores and answers, as data that needs numpy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError
from mlinfer.hosts._forms import _file
from mlinfer.hosts._forms._bitmasks import Bitmasks
from mlinfer.hosts._forms._columns import (
    Choice,
    Column,
    Lookup,
    Number,
    column_from_json,
    column_to_json,
    table_of,
)
from mlinfer.hosts._forms._linear import Linear
from mlinfer.hosts._forms._links import Link
from mlinfer.hosts._forms._walks import Walks
from mlinfer.hosts._forms._words import Bag, Words

DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


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
        take = table_of(inputs, _lookups(self.core), _numbers(self.core))
        return lambda records: self.core.scores(take(records))

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
        """The form in these bytes. Raises ConfigError: they are damaged, or ONNX Runtime is missing."""
        try:
            facts, arrays = _file.load(content)
            lookups = [
                Lookup(int(place), tuple(known), bool(refuses)) for place, known, refuses in facts["lookups"]
            ]
            return cls(_core(facts, arrays, lookups), Link.from_json(facts["link"]))
        except DAMAGE as error:
            msg = f"{where}: wanted a compiled form, found something damaged or foreign ({error}); save the model again"
            raise ConfigError(msg) from error


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
