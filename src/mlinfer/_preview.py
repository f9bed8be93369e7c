"""Answers for the first records of a source, as a run would give them; undecodable ones are shown as what they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from mlinfer._answering import Answering, answered
from mlinfer._arrays import no_rows
from mlinfer._batch import BadRecord, Batch, RecordIds
from mlinfer._engine import Step, check_batch, names_of
from mlinfer._errors import EndOfInput
from mlinfer._inbox import coalesce

if TYPE_CHECKING:
    from mlinfer._clock import Clock
    from mlinfer._engine import Job
    from mlinfer._protocols import DataSource, Reader

FRUITLESS = 50
SECONDS = 0.1


def preview(answering: Answering, job: Job, count: int, *, clock: Clock) -> pa.Table:
    """The first `count` records: kept columns, answers, and what became of each in `status` and `status_detail`."""
    layout = job.lay_out(answering.signature)
    step = Step(answering.model, layout, job.batching.max_records)
    tables = []
    for batch in _first(job, layout.wanted, count):
        table = answered(answering, step, _numbered(batch), job, on_reject="null", clock=clock)
        if "record_id" in layout.lineage.names:  # unlike data in hand, these records have names
            place = table.schema.get_field_index("record_id")
            table = table.set_column(place, table.field(place), _names(batch))
        tables.append(table)
    return pa.concat_tables(tables) if tables else pa.Table.from_batches([no_rows(layout.output)])


def _first(job: Job, wanted: pa.Schema, count: int) -> Iterator[Batch]:
    """The first records, good and bad ones together `count`: what was read of one partition in one form at a time."""
    for partition in names_of(job.source):
        found: list[Batch] = []
        with job.source.open(partition, None, wanted) as reader:
            for batch in _reads(reader, count, partition, job.source):
                count -= len(batch) + len(batch.bad)
                if found and not batch.records.schema.equals(found[0].records.schema):
                    yield coalesce(found)
                    found = []
                found.append(batch)
        if found:
            yield coalesce(found)
        if not count:
            return


def _reads(reader: Reader, count: int, partition: str, source: DataSource) -> Iterator[Batch]:
    """What a reader has, up to so many records; an endless source that has nothing more is not waited for."""
    fruitless = 0
    while count and fruitless < FRUITLESS:
        try:
            batch = reader.read(count, SECONDS)
        except EndOfInput:
            return
        if batch is not None:
            check_batch(batch, partition, source)  # before it is cut, which hides what is wrong with it
        if batch is None or not (len(batch) or batch.bad):
            fruitless += 1
            continue
        batch = _cut(batch, count)
        count -= len(batch) + len(batch.bad)
        yield batch


def _cut(batch: Batch, count: int) -> Batch:
    """No more than were asked for: a reader counts its bad records in, or does not."""
    good = min(len(batch), count)
    ids = batch.ids if good == len(batch) else batch.ids.take(range(good))
    return replace(batch, records=batch.records.slice(0, good), ids=ids, bad=batch.bad[: count - good])


def _numbered(batch: Batch) -> Batch:
    """The same records by their rows in the table to come; those that could not be decoded are its last ones."""
    bad = tuple(
        BadRecord(f"#{len(batch) + row}", one.kind, f"{one.id}: {one.message}", one.raw)
        for row, one in enumerate(batch.bad)
    )
    return Batch(batch.records, batch.partition, None, RecordIds.ordinals("", 0, len(batch)), bad)


def _names(batch: Batch) -> pa.Array:
    return pa.concat_arrays([batch.ids.array(), pa.array([one.id for one in batch.bad], pa.string())])
