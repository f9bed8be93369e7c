"""Bad records as data: one envelope for every stage that can refuse a record."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import constant, elements, from_numpy, from_values, with_gaps
from mlinfer._casts import is_list, owners
from mlinfer._text import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        pa.field("pipeline", pa.string()),
        pa.field("run", pa.string()),
        pa.field("rejected_at", pa.timestamp("us", "UTC")),
    ]
)
"""The envelope of a reject. `record` is the record as JSON (the columns that were read; at the stage `write` the answer
that was refused), `raw` its bytes if it could not be decoded; `stage` is a key of `STAGES`. A row of the stage `replay`
is a mark: it closes what was rejected under its `record_id` before."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage at which a record can be refused.

    `kinds` are the reasons that mlinfer's own parts give; with `more`, parts of others may give reasons of their own.
    """

    meaning: str
    kinds: tuple[str, ...]
    more: bool = False


REPLAY = "replay"
DELIVERED = "delivered"
STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "decode": Stage(
            "the source could not make a record of it",
            ("undecodable", "wrong_type", "wrong_columns", "too_large", "unreadable", "map_error"),
            more=True,
        ),
        "conform": Stage(
            "it does not fit the model's signature",
            ("missing_value", "wrong_type", "wrong_length", "not_finite"),
        ),
        "infer": Stage(
            "the model could not answer it",
            (
                "model_error",
                "timeout",
                "model_died",
                "out_of_memory",
                "unknown_category",
                "too_large",
                "no_picture",
            ),
            more=True,
        ),
        "answer": Stage("the answer is NaN, infinite or null where that has no meaning", ("bad_answer",)),
        "write": Stage(
            "the destination refused it",
            ("refused", "missing_key", "too_large", "bad_text", "bad_time"),
            more=True,
        ),
        REPLAY: Stage("no reject: the mark that a replay has delivered the record since", (DELIVERED,)),
    }
)
"""Every stage, in the order in which a record passes them."""

AGAIN = "replay/"
"""In front of the name of a partition: its rejected records are asked again."""

ANSWERED = "replay-answers/"
"""The same for answers that the destination refused: they are delivered as they are, the model is not asked."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_MESSAGE = 1000
LONGEST_RAW = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Rejected:
    """Records of one partition that were refused at one stage; `places` are theirs among all that came in their batch."""

    partition: str
    stage: str
    ids: RecordIds
    kinds: Sequence[str]
    messages: Sequence[str]
    records: pa.RecordBatch | None = None
    raws: Sequence[bytes] = ()
    places: Sequence[int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a stage or a kind that nobody could look up."""
        known = STAGES.get(self.stage)
        if known is None:
            msg = f"wanted one of the stages {', '.join(STAGES)}, found {self.stage!r}"
            raise ValueError(msg)
        if not known.more and (strange := set(self.kinds).difference(known.kinds)):
            msg = f"stage {self.stage}: wanted one of the kinds {', '.join(known.kinds)}, found {', '.join(sorted(strange))}"
            raise ValueError(msg)

    def __len__(self) -> int:
        """The number of records."""
        return len(self.kinds)

    def reasons(self) -> Counter[tuple[str, str]]:
        """How many there are of each stage and kind."""
        return Counter({(self.stage, kind): number for kind, number in Counter(self.kinds).items()})

    def envelopes(self, model: str, run: str, now: datetime, *, pipeline: str = "") -> pa.RecordBatch:
        """These records as rows of `REJECTS`."""
        from mlinfer._json_text import json_objects  # pyarrow.compute, which it needs, is slow to import

        count = len(self)
        records = (
            pa.nulls(count, pa.string())
            if self.records is None
            else _with_nonfinite(json_objects(self.records).cast(pa.string()), self.records)
        )
        raws = (
            from_values([raw[:LONGEST_RAW] for raw in self.raws])
            if self.raws
            else pa.nulls(count, pa.binary())
        )
        columns = [
            self.ids.array(),
            pa.repeat(constant(self.partition), count),
            pa.repeat(constant(self.stage), count),
            _repeated(self.kinds),
            _repeated(self.messages, lambda message: plain(message, LONGEST_MESSAGE)),
            records,
            raws,
            pa.repeat(constant(model), count),
            pa.repeat(constant(pipeline), count),
            pa.repeat(constant(run), count),
            pa.repeat(_moment(now), count),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=REJECTS)


def _texts(values: Sequence[str | None]) -> pa.Array:
    return from_values(list(values)).cast(pa.string())


def _moment(time: datetime) -> pa.Scalar:
    """Without `pa.scalar`, which imports pandas."""
    kind = REJECTS.field("rejected_at").type
    return from_values([(time - EPOCH) // timedelta(microseconds=1)]).cast(kind)[0]


def mark_delivered(partition: str, ids: RecordIds) -> Rejected:
    """The marks that close the rejects of these records: a replay has delivered them."""
    count = len(ids.array())
    return Rejected(partition, REPLAY, ids, [DELIVERED] * count, ["a replay has delivered it"] * count)


def _with_nonfinite(texts: pa.Array, records: pa.RecordBatch) -> pa.Array:
    """JSON knows neither NaN nor infinity; a record that holds some keeps them as texts, so that a replay has them again."""
    changed: dict[int, dict[str, Any]] = {}
    for name, column in zip(records.schema.names, records.columns, strict=True):
        for row in _rows_with_nonfinite(column):
            record = changed.setdefault(row, json.loads(texts[int(row)].as_py()))
            record[name] = _spelled(record[name], column[int(row)])
    if not changed:
        return texts
    found = texts.to_pylist()
    for row, record in changed.items():
        found[row] = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return _texts(found)


def _rows_with_nonfinite(column: pa.Array) -> list[int]:
    kind = column.type
    if pt.is_floating(kind):
        values, gaps = with_gaps(column)
        return list(np.flatnonzero(~(np.isfinite(values) | gaps)))
    if is_list(kind):
        return list(np.unique(owners(column)[_rows_with_nonfinite(elements(column))]))
    if pt.is_struct(kind):
        return sorted({row for inner in column.flatten() for row in _rows_with_nonfinite(inner)})
    if pt.is_map(kind):
        items = [_rows_with_nonfinite(value.values.field(1)) if value.is_valid else [] for value in column]
        return [row for row, found in enumerate(items) if found]
    return []


def _spelled(told: Any, value: pa.Scalar) -> Any:
    """What JSON tells of a value, with the numbers in it that are none as texts."""
    kind = value.type
    if pt.is_floating(kind):
        number = value.as_py()
        if number is None or math.isfinite(number):
            return told
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if told is None or not value.is_valid:
        return told
    if is_list(kind):
        return [_spelled(one, inner) for one, inner in zip(told, value.values, strict=True)]
    if pt.is_struct(kind):
        return {name: _spelled(one, value[name]) for name, one in told.items()}
    if pt.is_map(kind) and len(told) == len(value.values):  # a key that is there twice is told once
        inner = value.values.field(1)
        return {key: _spelled(one, inner[n]) for n, (key, one) in enumerate(told.items())}
    return told


def _repeated(texts: Sequence[str], spell: Callable[[str], str] = str) -> pa.Array:
    """Texts as they are spelled; there are many rejects and few different reasons."""
    different = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    places = np.fromiter(map(different.__getitem__, texts), np.int64, len(texts))
    return _texts([spell(text) for text in different]).take(from_numpy(places))
