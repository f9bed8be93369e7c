"""Conform, infer, join: what `run`, `infer` and `serve` all do to a batch, without threads, queues or a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlinfer._answers import Usable
from mlinfer._batch import Batch, RecordIds
from mlinfer._choosing import chosen_rows
from mlinfer._conform import Conform, as_found
from mlinfer._engine._asking import AskArrays, AskBatches, way_to_ask
from mlinfer._engine._at_once import Columns, at_once
from mlinfer._engine._left import Left, undecoded
from mlinfer._engine._spending import Lookout
from mlinfer._errors import ComponentError, ConfigError, RecordErrors
from mlinfer._events import ModelChanged
from mlinfer._failpoints import failpoint
from mlinfer._isolate import Isolated, Rows, isolate
from mlinfer._protocols import Model, SideTables, Stateful
from mlinfer._rejects import Rejected
from mlinfer._text import said
from mlinfer._watching import same_model

if TYPE_CHECKING:
    from mlinfer._engine._spending import Spending
    from mlinfer._layout import Layout
    from mlinfer._lineage import Lineage


READ_ONLY = " is read-only"
"""What numpy says to who writes into an array that is not its own."""


class TimedOut(ComponentError):  # noqa: N818 - the name of what happened
    """The model took too long, and nobody wants to know for which record."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What becomes of a batch: answered records (kept columns and answers), rejects, side tables, the model's memory.

    `layout` is that of the version of the model that answered: one version for all records.
    """

    answered: Batch | Columns
    rejects: tuple[Rejected, ...] = ()
    sides: Mapping[str, pa.RecordBatch] = field(default_factory=dict)
    state: bytes | None = None
    layout: Layout | None = None

    @cached_property
    def batch(self) -> Batch:
        """The answered records."""
        return self.answered if isinstance(self.answered, Batch) else self.answered.batch()

    def column(self, name: str) -> np.ndarray | pa.Array:
        """One column of them; of plain numbers perhaps in numpy."""
        if isinstance(self.answered, Batch):
            return self.answered.records.column(name)
        return self.answered.columns[name]

    @property
    def rejected(self) -> int:
        """The number of records that were rejected."""
        return sum(map(len, self.rejects))


class Step:
    """One model at work on the batches of one pipeline. Not for several threads, unless the model may be shared."""

    def __init__(
        self,
        model: Model,
        layout: Layout,
        max_records: int,
        *,
        lineage: Lineage | None = None,
        renewed: Callable[[ModelChanged], None] | None = None,
        spending: Spending | None = None,
    ) -> None:
        self.model, self.layout = model, layout
        self._renewed = renewed
        self.max_records = max_records
        self._lineage = lineage if len(layout.lineage) else None
        self._spending = spending
        self._inputs = Conform(layout.signature.inputs, layout.columns)
        self._keep = Conform(layout.keep, encoded=True)
        self._usable = Usable(layout.signature.outputs)
        self._types = layout.output.types
        self._way_to_ask = way_to_ask(model)
        # the powers are looked up once: to ask a runtime protocol costs more than to ask a small model
        self._stateful = model if isinstance(model, Stateful) else None
        self._side_tables = model if isinstance(model, SideTables) else None
        self._state: bytes | None = None
        self._out_of_memory = False
        # what a model remembers, or reports beside its answers, is not handed over to another
        remembers = self._stateful is not None or self._side_tables is not None
        self._newer = None if remembers else getattr(model, "newer", None)
        self._at_once = at_once(model, layout)

    def at_once(self, columns: Mapping[str, np.ndarray], rows: int) -> Answers | None:
        """The same for arrays by column, if there is nothing to say about any of their records; None: there may be."""
        if self._newer is not None:
            self._renew(self._newer)
        if self._at_once is None or rows > self.max_records:
            return None
        failpoint("host.infer.before")
        found = self._at_once(columns, rows)
        failpoint("host.infer.after")
        if found is None:
            return None
        return Answers(found, layout=self.layout)

    def __call__(self, batch: Batch) -> Answers:
        """Answer a batch: every record of it is in the answers or in the rejects, all by one version of the model.

        When this raises, the model's memory is what it was before.
        """
        if self._newer is not None:
            self._renew(self._newer)
        before = self._state
        try:
            return self._answer(batch)
        except BaseException:  # whatever it was, the model's memory goes back; raised again
            self._state = before
            self._go_back()
            raise

    def _answer(self, batch: Batch) -> Answers:
        rejects = [undecoded(batch)] if batch.bad else []
        left = Left(batch)
        fit = self._keep(batch.records)
        kept, records = fit.records, batch.records
        if fit.errors is not None and fit.good is not None:
            rejects.append(left.reject("conform", fit.errors))
            records = chosen_rows(records, fit.good)
        fit = self._inputs(records)
        if fit.errors is not None and fit.good is not None:
            rejects.append(left.reject("conform", fit.errors))
            kept = chosen_rows(kept, fit.good)
        sides: list[Mapping[str, pa.RecordBatch]] = []
        answers, errors = self._answer_all(fit.records, left.ids, sides)
        if errors is not None:
            rejects.append(left.reject("infer", errors))
            kept = chosen_rows(kept, _but_for(errors.rows, kept.num_rows))
        errors = self._usable(answers.columns)
        if errors is not None:
            rejects.append(left.reject("answer", errors))
            good = _but_for(errors.rows, answers.num_rows)
            answers, kept = chosen_rows(answers, good), chosen_rows(kept, good)
        joined = self._joined(kept, answers, left.ids)
        answered = Batch(joined, batch.partition, batch.position, left.ids)
        return Answers(answered, tuple(rejects), _merged(sides), self._state, self.layout)

    def _joined(self, kept: pa.RecordBatch, answers: pa.RecordBatch, ids: RecordIds) -> pa.RecordBatch:
        output = self.layout.output
        if answers.schema.equals(output, check_metadata=True):  # nothing is kept
            return answers
        columns = [*kept.columns, *answers.columns]
        if self._lineage is not None:
            columns += self._lineage.columns(self.layout.lineage, ids, answers.num_rows)
        if [column.type for column in columns] != self._types:
            output = as_found(output, columns)
        return pa.RecordBatch.from_arrays(columns, schema=output)

    def _renew(self, newer: Callable[[], Model | None]) -> None:
        """Between two batches: let a newer version take over, if there is one."""
        was = self.layout.signature
        name = f"{was.model_id}@{was.version}"
        failpoint("host.swap.before")
        try:
            found = newer()
        except ConfigError as error:
            self._tell(ModelChanged(name, problem=str(error)))
            return
        if found is None or same_model(found.signature, was):
            return
        now = found.signature
        if not (was.inputs.equals(now.inputs) and was.outputs.equals(now.outputs)):
            msg = f"model {was.model_id!r}: wanted a newer version with the same fields, found other ones; run a pipeline of its own for it"
            raise ComponentError(msg)
        self.model, self.layout = found, replace(self.layout, signature=now)
        self._way_to_ask = way_to_ask(found)
        self._newer = getattr(found, "newer", None)
        self._at_once = at_once(found, self.layout)
        self._lineage = self._lineage and self._lineage.of(now)
        failpoint("host.swap.after")
        self._tell(ModelChanged(name, f"{now.model_id}@{now.version}"))

    def _tell(self, event: ModelChanged) -> None:
        if self._renewed is not None:
            self._renewed(event)

    def _answer_all(
        self, inputs: pa.RecordBatch, ids: RecordIds, sides: list[Mapping[str, pa.RecordBatch]]
    ) -> tuple[pa.RecordBatch, RecordErrors | None]:
        """Ask the model, at most `max_records` at a time; the answers are those of the records that have no error."""
        asking = self._way_to_ask(self.model, self.layout.signature, inputs)
        pieces: list[Any] = []
        bad: list[Isolated[Any]] = []
        # where there is a budget, nobody goes on looking for bad records when it is spent
        look = Lookout(self._spending, ids, inputs.num_rows, bad) if self._spending else None
        start, end = 0, inputs.num_rows
        while start < end:
            stop = start + self.max_records
            rows = range(start, stop if stop < end else end)  # noqa: FURB136 - of one record each, `min` is seen
            try:
                pieces.append(self._ask(asking, rows, sides))
            except TimedOut as error:
                names = ids.array().slice(start, len(rows))
                msg = f"{error} (records {names[0]} to {names[-1]}); with rejects= the slow ones would be set apart"
                raise ComponentError(msg) from error
            except Exception as error:  # noqa: BLE001 - isolate raises it again unless it is about records
                found = isolate(lambda some: self._ask(asking, some, sides), rows, error, look)
                pieces += [answer for _, answer in found.answers]
                self._remember_size(found)
                bad.append(found)
            start = stop
        return asking.joined(pieces), _errors(bad)

    def _ask(
        self, asking: AskBatches | AskArrays, rows: Rows, sides: list[Mapping[str, pa.RecordBatch]]
    ) -> Any:
        try:
            failpoint("host.infer.before")
            answers = asking.ask(rows)
            failpoint("host.infer.after")
        except SystemExit as error:  # a model that gives up must not end the program around it
            self._go_back()
            msg = f"the model called sys.exit({error.code!r})"
            raise RuntimeError(msg) from error
        except Exception as error:  # undone, then raised again for isolate
            self._go_back()
            if isinstance(error, TimeoutError) and self._spending and not self._spending.rejects_kept:
                raise TimedOut(str(error)) from error
            self._out_of_memory |= isinstance(error, MemoryError)
            if READ_ONLY in said(error):  # no record is to blame, so none is rejected
                msg = (
                    f"model {self.layout.signature.model_id!r}: wanted a model that leaves its input as it is, found one that "
                    f"writes into it ({error}); let it work on a copy: x = x.copy()"
                )
                raise ComponentError(msg) from error
            raise
        if self._side_tables is not None:
            sides.append(self._side_tables.drain())
        if self._stateful is not None:
            self._state = self._stateful.snapshot()
        return answers

    def _remember_size(self, found: Isolated[Any]) -> None:
        """After running out of memory: the next batches are as large as what went through."""
        if self._out_of_memory and found.answers:
            self.max_records = max(len(rows) for rows, _ in found.answers)
        self._out_of_memory = False

    def _go_back(self) -> None:
        """Undo what a failed attempt left in the model."""
        if self._side_tables is not None:
            self._side_tables.drain()
        if self._stateful is not None and self._state is not None:
            self._stateful.restore(self._state)

    def resume(self, state: bytes | None) -> None:
        """Begin a partition where an earlier run left it; for a Stateful model."""
        if self._stateful is not None:
            if state is not None:
                self._stateful.restore(state)
            self._state = self._stateful.snapshot()


def _but_for(bad: list[int], count: int) -> np.ndarray:
    good = np.ones(count, bool)
    good[bad] = False
    return good


def _errors(found: list[Isolated[Any]]) -> RecordErrors | None:
    """The bad records of all calls, in order."""
    bad = sorted(
        (row, kind, message)
        for one in found
        for row, kind, message in zip(one.rows, one.kinds, one.messages, strict=True)
    )
    if not bad:
        return None
    return RecordErrors([row for row, _, _ in bad], [kind for _, kind, _ in bad], [why for _, _, why in bad])


def _merged(sides: list[Mapping[str, pa.RecordBatch]]) -> Mapping[str, pa.RecordBatch]:
    names = dict.fromkeys(name for tables in sides for name in tables)
    return {name: pa.concat_batches([tables[name] for tables in sides if name in tables]) for name in names}
