"""Which model gave an answer, to which record, in which run and when: columns that travel beside the answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlinfer._arrays import constant, from_numpy, from_values
from mlinfer._errors import ConfigError

if TYPE_CHECKING:
    from mlinfer._batch import RecordIds
    from mlinfer._clock import Clock
    from mlinfer._signature import Signature

WHEN = pa.timestamp("us", "UTC")
LINEAGE = pa.schema(
    [
        ("record_id", pa.string()),
        ("model_id", pa.string()),
        ("model_version", pa.string()),
        ("run_id", pa.string()),
        ("inferred_at", WHEN),
        ("trace_id", pa.string()),
    ]
)
"""All that can be told about an answer; a pipeline names what it wants in `lineage=`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def chosen(names: Sequence[str]) -> pa.Schema:
    """The fields of these names, in this order. Raises ConfigError: there is no such field."""
    if isinstance(names, str):
        msg = f"lineage: wanted a list of columns, found the text {names!r}; write lineage=[{names!r}]"
        raise ConfigError(msg)
    unknown = [name for name in names if name not in LINEAGE.names]
    if unknown:
        msg = f"lineage: wanted some of {', '.join(LINEAGE.names)}, found {', '.join(map(repr, unknown))}"
        raise ConfigError(msg)
    return pa.schema([LINEAGE.field(name) for name in dict.fromkeys(names)])


class Lineage:
    """Tells the lineage of the answers of one run.

    `in_hand`: the ids are row numbers of one call or request, so a record is called `RUN/CALL#ROW`, to tell it from others.
    """

    def __init__(self, signature: Signature, run: str, clock: Clock, *, in_hand: bool = False) -> None:
        self._texts = {
            name: from_values([text])
            for name, text in (
                ("model_id", signature.model_id),
                ("model_version", signature.version),
                ("run_id", run),
            )
        }
        self._run, self._clock, self._in_hand = run, clock, in_hand
        self._calls = itertools.count(1)

    def of(self, signature: Signature) -> Lineage:
        """The lineage of another version's answers."""
        return Lineage(signature, self._run, self._clock, in_hand=self._in_hand)

    def columns(self, wanted: pa.Schema, ids: RecordIds, count: int) -> list[pa.Array]:
        """The wanted fields for `count` records that have just been answered; texts come dictionary-encoded."""
        call = next(self._calls)
        return [self._column(name, ids, count, call) for name in wanted.names]

    def _column(self, name: str, ids: RecordIds, count: int, call: int) -> pa.Array:
        if name == "record_id":
            return self._named(ids.array(), call)
        if name == "trace_id":  # a server puts in what its callers say; a run has none
            return pa.nulls(count, pa.string())
        if name == "inferred_at":
            micros = (self._clock.now() - _EPOCH) // timedelta(microseconds=1)
            return from_numpy(np.full(count, micros, np.int64)).view(WHEN)
        return pa.DictionaryArray.from_arrays(from_numpy(np.zeros(count, np.int32)), self._texts[name])

    def _named(self, ids: pa.Array, call: int) -> pa.Array:
        if not self._in_hand:
            return ids
        import pyarrow.compute as pc

        return pc.binary_join_element_wise(constant(f"{self._run}/{call}"), ids, constant(""))
