"""Bad records as data: one envelope for every stage that can refuse a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mlinfer._text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mlinfer._batch import RecordIds

REJECTS = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("partition", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("record", pa.string()),
        pa.field("raw", pa.binary()),
        pa.field("model", pa.string()),
        pa.field("run", pa.string()),
        pa.field("rejected_at", pa.timestamp("us", "UTC")),
    ]
)
"""The envelope of a reject. `record` is the record as JSON (the columns that were read), `raw` its bytes if it could not
be decoded; `stage` is decode, conform, infer, answer or write."""

LONGEST_MESSAGE = 1000
LONGEST_RAW = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Rejected:
    """Records of one partition that were refused at one stage."""

    partition: str
    stage: str
    ids: RecordIds
    kinds: Sequence[str]
    messages: Sequence[str]
    records: pa.RecordBatch | None = None
    raws: Sequence[bytes] = ()

    def __len__(self) -> int:
        """The number of records."""
        return len(self.kinds)

    def envelopes(self, model: str, run: str, now: datetime) -> pa.RecordBatch:
        """These records as rows of `REJECTS`."""
        from mlinfer._json_text import json_objects  # pyarrow.compute, which it needs, is slow to import

        count = len(self)
        records = (
            pa.nulls(count, pa.string())
            if self.records is None
            else json_objects(self.records).cast(pa.string())
        )
        raws = [raw[:LONGEST_RAW] for raw in self.raws] if self.raws else [None] * count
        columns = [
            self.ids.array(),
            pa.repeat(pa.scalar(self.partition), count),
            pa.repeat(pa.scalar(self.stage), count),
            pa.array(self.kinds, pa.string()),
            _tidied(self.messages),
            records,
            pa.array(raws, pa.binary()),
            pa.repeat(pa.scalar(model), count),
            pa.repeat(pa.scalar(run), count),
            pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), count),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=REJECTS)


def _tidied(messages: Sequence[str]) -> pa.Array:
    """The messages on one line each; there are many rejects and few different reasons."""
    tidy = {message: plain(message, LONGEST_MESSAGE) for message in set(messages)}
    return pa.array([tidy[message] for message in messages], pa.string())
