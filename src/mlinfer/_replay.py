"""Rejects read back: which of them are open, and how they go through their pipeline once more."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from mlinfer._batch import BadRecord, Batch, Position, RecordIds
from mlinfer._casts import cast, is_text
from mlinfer._clock import SystemClock
from mlinfer._engine import Budget, Job, Outputs, open_model
from mlinfer._errors import ChangedError, ConfigError, EndOfInput
from mlinfer._progress import Progress
from mlinfer._protocols import Computes, DataSource, ReadsBack, Scope, SideTables, Stateful
from mlinfer._records import batch_from_rows
from mlinfer._rejects import AGAIN, ANSWERED, LONGEST_RAW, REJECTS, REPLAY, STAGES, mark_delivered
from mlinfer._restoring import restored

if TYPE_CHECKING:
    from mlinfer._layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rejects are meant; those that fit everything that is given.

    Args:
        stage: only those of a stage: decode, conform, infer, answer or write.
        kind: only those of a kind, such as `missing_value`.
        since: only those rejected at this time or later; without a time zone it is UTC.
        until: only those rejected before this time.
        limit: so many at most, the oldest first.
    """

    stage: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a choice that nothing could fit."""
        stages = [stage for stage in STAGES if stage != REPLAY]
        if self.stage is not None and self.stage not in stages:
            msg = f"stage: wanted one of {', '.join(stages)}, found {self.stage!r}"
            raise ConfigError(msg)
        if self.limit is not None and self.limit < 0:
            msg = f"limit: wanted a number of rejects, 0 or more, found {self.limit}"
            raise ConfigError(msg)

    def of(self, rejects: pa.Table) -> pa.Table:
        """Those rows of `REJECTS` that fit."""
        import pyarrow.compute as pc

        for column, compare, value in (
            ("stage", pc.equal, self.stage),
            ("kind", pc.equal, self.kind),
            ("rejected_at", pc.greater_equal, self.since and _moment(self.since)),
            ("rejected_at", pc.less, self.until and _moment(self.until)),
        ):
            if value is not None:
                rejects = rejects.filter(compare(rejects[column], value))
        return rejects.slice(0, self.limit)


def open_rejects(job: Job) -> pa.Table:
    """The rejects of a pipeline that no replay has delivered since, as `REJECTS`, the oldest first.

    A record that was rejected several times is there once, as it was rejected last. Raises ConfigError: the pipeline has no
    place for rejects, or one that cannot be read back.
    """
    import pyarrow.compute as pc

    place = readable_rejects(job)
    scope = Scope(job.name or "", "rejects", read_only=True)
    batches = [_as_rejects(batch) for batch in place.records(scope)]
    found = pa.Table.from_batches(batches, REJECTS)
    found = found.filter(pc.equal(found["pipeline"], job.name or ""))  # others may write to the same table
    order = pc.sort_indices(
        found.append_column("place", pa.array(range(len(found)), pa.int64())),
        [("rejected_at", "ascending"), ("place", "ascending")],
    )
    found = found.take(order)
    last = {name: row for row, name in enumerate(found["record_id"].to_pylist())}
    kept = found.take(pa.array(sorted(last.values()), pa.int64()))
    return kept.filter(pc.not_equal(kept["stage"], REPLAY))


def readable_rejects(job: Job) -> ReadsBack:
    """The place of the rejects. Raises ConfigError: there is none, or it cannot be read back."""
    if job.rejects is None:
        msg = f"pipeline {job.name!r}: wanted a place for rejects, found none; name one with rejects= (in a file: the table [rejects])"
        raise ConfigError(msg)
    if not isinstance(job.rejects, ReadsBack):
        msg = f"pipeline {job.name!r}: its rejects go to {job.rejects!r}, which mlinfer cannot read back; look there with its own tools"
        raise ConfigError(msg)
    return job.rejects


def replay_of(job: Job, choice: Choice) -> Job:
    """The job that delivers the chosen rejects of a pipeline.

    Raises ConfigError: there is no telling what was delivered, the model has a memory, or nothing chosen can be replayed.
    """
    readable_rejects(job)
    with open_model(job.host) as model:
        if isinstance(model, Stateful):
            msg = (
                f"pipeline {job.name!r}: wanted a model that answers each record by itself, found one with a memory: its "
                "answer to a rejected record depends on when it comes; run the pipeline from the start instead"
            )
            raise ConfigError(msg)
        layout = job.lay_out(model.signature)
        sides = model.side_schemas() if isinstance(model, SideTables) else {}
    replaying = replace(job, replaying=True, budget=Budget(ratio=None))
    _settle(replaying, layout, sides)
    chosen = choice.of(open_rejects(job))
    functions = job.source.computed_by() if isinstance(job.source, Computes) else ()
    source = RejectsSource(_held(chosen), layout.wanted, layout.output, tuple(functions))
    if len(chosen) and not source.held:
        msg = (
            f"pipeline {job.name!r}: wanted rejects that hold their record, found {len(chosen):,} of which only bytes were kept; "
            "mend them where they come from"
        )
        raise ConfigError(msg)
    return replace(replaying, source=source)


def _settle(job: Job, layout: Layout, sides: Mapping[str, pa.Schema]) -> None:
    """Mark what a replay that died has delivered and not marked."""
    with Outputs(job, Scope(job.name or "", run=secrets.token_hex(8), read_only=True), {}) as outputs:
        stored = outputs.open(layout.output, sides).positions
    pending = {
        partition: position["unmarked"]
        for partition, position in stored.items()
        if partition.startswith((AGAIN, ANSWERED)) and position["unmarked"]
    }
    # what the replay has rejected again is open under that replay's run
    still = {
        (one["run"], one["record_id"]) for one in open_rejects(job).select(["run", "record_id"]).to_pylist()
    }
    pending = {name: [one for run, one in keys if (run, one) in still] for name, keys in pending.items()}
    if not any(pending.values()):
        return
    scope = Scope(job.name or "", run=secrets.token_hex(8))
    with Outputs(job, scope, {}) as outputs:
        outputs.open(layout.output, sides)
        assert outputs.rejects is not None  # noqa: S101 - looked at before
        for partition, names in pending.items():
            marks = mark_delivered(partition, RecordIds.of(pa.array(names, pa.string())))
            table = marks.envelopes("", scope.run, SystemClock().now(), pipeline=job.name or "")
            outputs.rejects.writer.write(Batch(table, partition, None, marks.ids))
        outputs.rejects.writer.commit(Progress())


Key: TypeAlias = tuple[str, str]
"""The run that rejected a record, and the record's id."""

Held: TypeAlias = dict[str, list[tuple[Key, dict[str, Any]]]]
"""Rejected records that can be replayed, by partition."""


def _held(rejects: pa.Table) -> Held:
    held: Held = {}
    for one in rejects.to_pylist():
        record = _record(one)
        if record is not None:
            name = one["partition"].removeprefix(AGAIN).removeprefix(ANSWERED)
            first = ANSWERED if one["stage"] == "write" else AGAIN
            held.setdefault(first + name, []).append(((one["run"], one["record_id"]), record))
    return held


@dataclass(frozen=True, eq=False)
class RejectsSource(DataSource):
    """The rejected records in hand, to be answered once more; one partition for each partition that they came from."""

    held: Held
    wanted: pa.Schema
    answers: pa.Schema
    functions: tuple[Callable[..., Any], ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    resume = "seek"

    def __repr__(self) -> str:
        """How many."""
        return f"RejectsSource({sum(map(len, self.held.values())):,} rejects)"

    def computed_by(self) -> Sequence[Callable[..., Any]]:
        """What the records went through before they were rejected: the progress belongs to it."""
        return self.functions

    def schema(self) -> pa.Schema:
        """What the pipeline's own source has."""
        return self.wanted

    def partitions(self) -> Sequence[str]:
        """The partitions they came from, marked as replayed."""
        return tuple(self.held)

    def remaining(self, partition: str, after: Position | None) -> int:
        """The number of records still to come."""
        return len(self.held[partition]) - self._start(after)

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[RejectsReader]:
        """The records behind a position of this replay; one of another replay means the first."""
        kinds = self.answers if partition.startswith(ANSWERED) else wanted
        yield RejectsReader(self, partition, kinds, row=self._start(after))

    def _start(self, after: Position | None) -> int:
        return after["row"] if after and after["replay"] == self.token else 0


class RejectsReader:
    """Reads records in hand, and remembers which of them are not marked yet."""

    def __init__(self, source: RejectsSource, partition: str, wanted: pa.Schema, *, row: int) -> None:
        self._held, self._partition, self._wanted = source.held[partition], partition, wanted
        self._token, self._row, self._marked = source.token, row, row

    def read(self, max_records: int, timeout: float) -> Batch:  # noqa: ARG002 - there is nothing to wait for
        """The next records."""
        some = self._held[self._row : self._row + max_records]
        if not some:
            raise EndOfInput
        self._row += len(some)
        rows = [restored(record, self._wanted) for _, record in some]
        records, good, bad = batch_from_rows(rows, self._wanted)
        ids = RecordIds.of(pa.array([some[row][0][1] for row in good], pa.string()))
        undecoded = tuple(
            BadRecord(some[one.row][0][1], one.kind, one.message, json.dumps(some[one.row][1]).encode())
            for one in bad
        )
        unmarked = [list(key) for key, _ in self._held[self._marked : self._row]]
        position = {"replay": self._token, "row": self._row, "unmarked": unmarked}
        return Batch(records, self._partition, position, ids, undecoded)

    def acknowledge(self, position: Position) -> None:
        """Delivered and marked: the next positions need not name them any more."""
        self._marked = position["row"]


def _record(reject: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a reject; None if only its bytes were kept."""
    text = reject["record"]
    if text is None:
        text = reject["raw"] or b""
        if reject["kind"] == "map_error" or len(text) >= LONGEST_RAW:
            return None  # a record as it was before it was mapped, or the beginning of one
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _as_rejects(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in the types of its place as `REJECTS`. Raises ChangedError: these are no rejects."""
    columns = []
    for one in REJECTS:
        if one.name not in batch.schema.names:
            msg = f"rejects: wanted the columns {', '.join(REJECTS.names)}, found {', '.join(batch.schema.names)}; is this their place?"
            raise ChangedError(msg)
        column = batch.column(one.name)
        if one.name == "raw" and is_text(column.type):
            column = pa.array([text and base64.b64decode(text) for text in column.to_pylist()], pa.binary())
        fitting, _ = cast(column, one.type)
        columns.append(fitting)
    return pa.RecordBatch.from_arrays(columns, schema=REJECTS)


def _moment(time: datetime) -> pa.Scalar:
    return pa.scalar(time if time.tzinfo else time.replace(tzinfo=UTC), pa.timestamp("us", "UTC"))
