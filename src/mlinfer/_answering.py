"""Answers for records in hand, by the same step that runs and serves."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from mlinfer._arrays import from_values, no_rows
from mlinfer._batch import BadRecord, Batch, RecordIds
from mlinfer._casts import cast
from mlinfer._choosing import chosen_rows
from mlinfer._engine import Answers, Job, Step
from mlinfer._errors import ConfigError, RecordErrors
from mlinfer._layout import Keep, Layout, lay_out
from mlinfer._lineage import Lineage
from mlinfer._protocols import Model, Stateful
from mlinfer._records import batch_from_rows
from mlinfer._rejects import Rejected
from mlinfer._tabular import UNNAMED, inferred, is_matrix, to_arrow

if TYPE_CHECKING:
    from mlinfer._clock import Clock
    from mlinfer._signature import Signature

IN_HAND = "in-hand"
STATUS = ("status", "status_detail")
"""Columns behind the answers that say why a record has none."""
NONE_BAD = RecordErrors([], [], [])


class Answering:
    """A loaded model, kept between calls; one call at a time."""

    def __init__(self, model: Model, stack: ExitStack) -> None:
        self.model, self._stack = model, stack
        self.lock = threading.Lock()
        self.unused = model.snapshot() if isinstance(model, Stateful) else None
        self._last: tuple[pa.Schema, Layout, Step, list[str] | None] | None = None
        self._last_rows: tuple[Keep, Layout, Step] | None = None

    @property
    def signature(self) -> Signature:
        """The model's."""
        return self.model.signature

    def prepared(self, schema: pa.Schema, job: Job) -> tuple[Layout, Step, list[str] | None]:
        """The columns and the step for tables of this schema, and which of its columns are wanted (None: all, as they are).

        Whoever asks again with such a table finds them made.
        """
        if self._last is None or not self._last[0].equals(schema, check_metadata=True):
            keep = _present(job.keep, schema.names)
            layout = lay_out(self.signature, schema, keep, job.columns, lineage=job.lineage)
            names = list(dict.fromkeys(layout.wanted.names))
            step = Step(self.model, layout, job.batching.max_records)
            self._last = schema, layout, step, None if names == schema.names else names
        return self._last[1:]

    def at_once(self, matrix: np.ndarray) -> pa.RecordBatch | None:
        """The answers to a matrix such as the last one, if there is nothing to say about it; None: there may be."""
        if self._last is None:
            return None
        with self.lock:
            found = self._last[2].at_once({UNNAMED: matrix}, len(matrix))
        return None if found is None else found.batch.records

    def prepared_for_rows(self, keep: Keep, job: Job) -> tuple[Layout, Step]:
        """The same for lists of dicts, whose kept columns have these types."""
        if self._last_rows is None or self._last_rows[0] != keep:
            layout = lay_out(self.signature, None, keep, job.columns, lineage=job.lineage)
            self._last_rows = keep, layout, Step(self.model, layout, job.batching.max_records)
        return self._last_rows[1:]

    def close(self) -> None:
        """Let go of the model."""
        self._stack.close()


def answer(
    answering: Answering, data: Any, job: Job, on_reject: Literal["raise", "null"], *, clock: Clock
) -> pa.Table:
    """One answer per record, in order; `data` is an Arrow table, a matrix or a list of dicts. Raises RecordErrors as asked."""
    if is_matrix(data):
        found = answering.at_once(data) if on_reject == "raise" else None
        if found is not None:
            return pa.Table.from_batches([found])
        data = to_arrow(data)
    if isinstance(data, pa.Table):
        layout, step, names = answering.prepared(data.schema, job)
        batch = numbered(_one_batch(data if names is None else data.select(names)))
    else:
        layout, step = answering.prepared_for_rows(_typed(job, data), job)
        batch = rows_batch(data, layout.wanted)
    table = answered(answering, step, batch, job, on_reject=on_reject, clock=clock)
    # rows that could not be put into columns: their kept values may well be
    if on_reject == "null" and batch.bad:
        return _with_kept(table, rows_batch(data, layout.keep), layout)
    return table


def answered(
    answering: Answering,
    step: Step,
    batch: Batch,
    job: Job,
    *,
    on_reject: Literal["raise", "null"],
    clock: Clock,
) -> pa.Table:
    """The same for a batch whose ids are row numbers, those of its bad records with them."""
    layout = step.layout
    if on_reject == "null":
        _check_names(layout)
    if layout.lineage.names:
        lineage = Lineage(answering.signature, secrets.token_hex(8), clock, in_hand=True)
        step = Step(answering.model, layout, job.batching.max_records, lineage=lineage)
    with answering.lock:
        step.resume(answering.unused)  # every call begins like a run does
        answers = step(batch)
    errors = in_order(answers) if answers.rejects else NONE_BAD
    if errors.rows and on_reject == "raise":
        raise errors
    table = pa.Table.from_batches([answers.batch.records])
    if not table.schema.equals(layout.output, check_metadata=True):
        table = table.cast(layout.output)
    if on_reject == "raise":
        return table
    return _with_kept(_with_status(table, errors, len(batch) + len(batch.bad)), batch, layout)


def in_order(answers: Answers) -> RecordErrors:
    """The rejects of a batch whose ids are `#0, #1, ...`, as errors by row."""
    found = sorted(
        (int(name.rpartition("#")[2]), kind, message)
        for group in answers.rejects
        for name, kind, message in _named(group)
    )
    return RecordErrors(
        [row for row, _, _ in found], [kind for _, kind, _ in found], [why for _, _, why in found]
    )


def _named(group: Rejected) -> zip[tuple[str, str, str]]:
    return zip(group.ids.array().to_pylist(), group.kinds, group.messages, strict=True)


def rows_batch(rows: Any, wanted: pa.Schema) -> Batch:
    """Rows of Python values as a batch whose ids are the row numbers."""
    records, good, bad = batch_from_rows(rows, wanted)
    ids = RecordIds.of(from_values([f"#{row}" for row in good]))
    return Batch(
        records, IN_HAND, None, ids, tuple(BadRecord(f"#{one.row}", one.kind, one.message) for one in bad)
    )


def numbered(records: pa.RecordBatch) -> Batch:
    """A batch whose ids are the row numbers."""
    return Batch(records, IN_HAND, None, RecordIds.ordinals("", 0, records.num_rows))


def _present(keep: Keep, names: list[str]) -> Keep:
    """Kept columns are for the destination; data in hand may come without them."""
    if isinstance(keep, Mapping):
        return {name: kind for name, kind in keep.items() if name in names}
    return [name for name in keep if name in names]


def _typed(job: Job, rows: Any) -> Keep:
    """The kept columns of rows with their types, as they were given or else as the values have them."""
    if isinstance(job.keep, Mapping) or not job.keep:
        return job.keep
    given = [row for row in rows if isinstance(row, dict)]
    found = {name: inferred([row.get(name) for row in given], name).type for name in job.keep}
    return {name: kind for name, kind in found.items() if not pa.types.is_null(kind)}


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    if len(batches) > 1:
        batches = table.combine_chunks().to_batches()
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return no_rows(table.schema) if table.num_columns else _no_columns(table.num_rows)
    return pa.concat_batches(batches)


def _no_columns(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def _check_names(layout: Layout) -> None:
    for name in STATUS:
        if name in layout.output.names:
            what = "a kept column" if name in layout.keep.names else "an answer of the model"
            msg = (
                f"wanted the columns {' and '.join(STATUS)} for what becomes of each record, found {what} called {name!r}; "
                "rename that one (Mapped in front of the source, Selected around the host)"
                + (", or do not keep it" if name in layout.keep.names else "")
            )
            raise ConfigError(msg)


def _with_status(table: pa.Table, errors: RecordErrors, count: int) -> pa.Table:
    """All records in order, nulls where there is no answer, and why in `status` and `status_detail`."""
    places = np.full(count, -1, np.int64)
    places[np.setdiff1d(np.arange(count), errors.rows)] = np.arange(table.num_rows)
    indices = pa.array(places, mask=places < 0)
    fields = [field.with_nullable(True) for field in table.schema]  # noqa: FBT003 - Arrow's own signature
    status: list[str] = ["ok"] * count
    detail: list[str | None] = [None] * count
    for row, kind, message in zip(errors.rows, errors.kinds, errors.messages, strict=True):
        status[row], detail[row] = kind, message
    whole = [chosen_rows(column, indices) for column in table.columns]
    columns = [*whole, pa.array(status, pa.string()), pa.array(detail, pa.string())]
    return pa.table(columns, pa.schema([*fields, *(pa.field(name, pa.string()) for name in STATUS)]))


def _with_kept(table: pa.Table, batch: Batch, layout: Layout) -> pa.Table:
    """A record without an answer still has its kept columns, so that one can see which it is."""
    places = np.full(len(table), -1, np.int64)
    rows = (
        [int(name.rpartition("#")[2]) for name in batch.ids.array().to_pylist()] if len(layout.keep) else []
    )
    places[rows] = np.arange(len(rows))
    for number, field in enumerate(layout.keep):
        column = chosen_rows(batch.records.column(field.name), pa.array(places, mask=places < 0))
        fitting, _ = cast(column, field.type)
        table = table.set_column(number, table.field(number), fitting)
    return table
