"""Conform, infer, join: what `run`, `infer` and `serve` all do to a batch, without threads, queues or a clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlinfer._answers import bad_answers, check_shape
from mlinfer._batch import Batch, RecordIds
from mlinfer._conform import Conform
from mlinfer._errors import ComponentError, RecordErrors
from mlinfer._failpoints import failpoint
from mlinfer._isolate import isolate
from mlinfer._protocols import Model, SideTables, Stateful
from mlinfer._rejects import Rejected

if TYPE_CHECKING:
    from mlinfer._layout import Layout


class TimedOut(ComponentError):  # noqa: N818 - the name of what happened
    """The model took too long, and nobody wants to know for which record."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What becomes of a batch: answered records (kept columns and answers), rejects, side tables, the model's memory."""

    batch: Batch
    rejects: tuple[Rejected, ...] = ()
    sides: Mapping[str, pa.RecordBatch] = field(default_factory=dict)
    state: bytes | None = None

    @property
    def rejected(self) -> int:
        """The number of records that were rejected."""
        return sum(map(len, self.rejects))


class Step:
    """One model at work on the batches of one pipeline. Not for several threads, unless the model may be shared."""

    def __init__(
        self, model: Model, layout: Layout, max_records: int, *, finds_slow_records: bool = True
    ) -> None:
        self.model, self.layout = model, layout
        self.max_records = max_records
        self._finds_slow_records = finds_slow_records
        self._inputs = Conform(layout.signature.inputs, layout.columns)
        self._keep = Conform(layout.keep)
        self._state: bytes | None = None

    def __call__(self, batch: Batch) -> Answers:
        """Answer a batch: every record of it is in the answers or in the rejects.

        When this raises, the model's memory is what it was before.
        """
        before = self._state
        try:
            return self._answer(batch)
        except BaseException:
            self._state = before
            self._go_back()
            raise

    def _answer(self, batch: Batch) -> Answers:
        rejects = [_undecoded(batch)] if batch.bad else []
        records, ids = batch.records, batch.ids
        kept = records
        for conform in (self._keep, self._inputs):
            fit = conform(records)
            if fit.errors is not None and fit.good is not None:
                rejects.append(_rejected(batch.partition, "conform", fit.errors, records=records, ids=ids))
                good = pa.array(fit.good)
                records, ids = records.filter(good), ids.filter(good)
                kept = kept.filter(good) if conform is self._inputs else fit.records
            elif conform is self._keep:
                kept = fit.records
        return self._infer(batch, records, (fit.records, kept, ids), rejects)

    def _infer(
        self,
        batch: Batch,
        records: pa.RecordBatch,
        fitting: tuple[pa.RecordBatch, pa.RecordBatch, RecordIds],
        rejects: list[Rejected],
    ) -> Answers:
        inputs, kept, ids = fitting
        sides: list[Mapping[str, pa.RecordBatch]] = []
        answers, errors = self._answer_all(inputs, ids, sides)
        if errors is not None:
            rejects.append(_rejected(batch.partition, "infer", errors, records=records, ids=ids))
            good = _mask(records.num_rows, errors.rows)
            records, kept, ids = records.filter(good), kept.filter(good), ids.filter(good)
        unusable = bad_answers(answers, self.layout.signature.outputs)
        if unusable is not None:
            bad, why = unusable
            rows = np.flatnonzero(bad).tolist()
            taken = records.take(pa.array(rows, pa.int64()))
            rejects.append(
                Rejected(
                    batch.partition,
                    "answer",
                    ids.take(rows),
                    ["bad_answer"] * len(rows),
                    [why] * len(rows),
                    taken,
                )
            )
            good = pa.array(~bad)
            answers, kept, ids = answers.filter(good), kept.filter(good), ids.filter(good)
        joined = pa.RecordBatch.from_arrays([*kept.columns, *answers.columns], schema=self.layout.output)
        answered = Batch(joined, batch.partition, batch.position, ids)
        return Answers(answered, tuple(rejects), _merged(sides), self._state)

    def _answer_all(
        self, inputs: pa.RecordBatch, ids: RecordIds, sides: list[Mapping[str, pa.RecordBatch]]
    ) -> tuple[pa.RecordBatch, RecordErrors | None]:
        """Ask the model, at most `max_records` at a time; the answers are those of the records that have no error."""
        pieces: list[pa.RecordBatch] = []
        rows: list[int] = []
        kinds: list[str] = []
        messages: list[str] = []
        start = 0
        while start < inputs.num_rows:
            part = inputs.slice(start, self.max_records)
            try:
                found = isolate(lambda records: self._ask(records, sides), part, before_retry=self._go_back)
            except TimedOut as error:
                names = ids.array().slice(start, part.num_rows)
                msg = f"{error} (records {names[0]} to {names[-1]}); with rejects= the slow ones would be set apart"
                raise ComponentError(msg) from error
            pieces += [answer for _, answer in found.answers]
            rows += [start + row for row in found.rows]
            kinds += found.kinds
            messages += found.messages
            start += part.num_rows
        if not pieces:
            empty = self.layout.signature.outputs.empty_table().to_batches()
            pieces = empty or [pa.RecordBatch.from_pylist([], schema=self.layout.signature.outputs)]
        answers = pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)
        return answers, _sorted_errors(rows, kinds, messages)

    def _ask(self, records: pa.RecordBatch, sides: list[Mapping[str, pa.RecordBatch]]) -> pa.RecordBatch:
        failpoint("host.infer.before")
        try:
            answers = check_shape(self.model.infer(records), self.layout.signature, records.num_rows)
        except MemoryError:
            self.max_records = max(1, records.num_rows // 2)  # and remember: the next batches are as large
            raise
        except TimeoutError as error:
            if self._finds_slow_records:
                raise
            raise TimedOut(str(error)) from error
        failpoint("host.infer.after")
        if isinstance(self.model, SideTables):
            sides.append(self.model.drain())
        if isinstance(self.model, Stateful):
            self._state = self.model.snapshot()
        return answers

    def _go_back(self) -> None:
        """Undo what a failed attempt left in the model."""
        if isinstance(self.model, SideTables):
            self.model.drain()
        if isinstance(self.model, Stateful) and self._state is not None:
            self.model.restore(self._state)

    def resume(self, state: bytes | None) -> None:
        """Begin a partition where an earlier run left it; for a Stateful model."""
        if isinstance(self.model, Stateful):
            if state is not None:
                self.model.restore(state)
            self._state = self.model.snapshot()


def _undecoded(batch: Batch) -> Rejected:
    ids = RecordIds.of(pa.array([bad.id for bad in batch.bad], pa.string()))
    kinds, messages = [bad.kind for bad in batch.bad], [bad.message for bad in batch.bad]
    return Rejected(batch.partition, "decode", ids, kinds, messages, raws=[bad.raw for bad in batch.bad])


def _rejected(
    partition: str, stage: str, errors: RecordErrors, *, records: pa.RecordBatch, ids: RecordIds
) -> Rejected:
    taken = records.take(pa.array(errors.rows, pa.int64()))
    return Rejected(partition, stage, ids.take(errors.rows), errors.kinds, errors.messages, taken)


def _mask(count: int, bad: list[int]) -> pa.Array:
    good = np.ones(count, bool)
    good[bad] = False
    return pa.array(good)


def _sorted_errors(rows: list[int], kinds: list[str], messages: list[str]) -> RecordErrors | None:
    if not rows:
        return None
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return RecordErrors([rows[n] for n in order], [kinds[n] for n in order], [messages[n] for n in order])


def _merged(sides: list[Mapping[str, pa.RecordBatch]]) -> Mapping[str, pa.RecordBatch]:
    names = dict.fromkeys(name for tables in sides for name in tables)
    return {name: pa.concat_batches([tables[name] for tables in sides if name in tables]) for name in names}
