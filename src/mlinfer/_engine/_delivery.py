"""Writes answers and rejects, and moves positions forward over what is durable, never further."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mlinfer._batch import Batch, Position
from mlinfer._choosing import chosen_rows
from mlinfer._engine._contract import check_positions
from mlinfer._engine._fingerprint import fingerprint
from mlinfer._engine._step import Answers
from mlinfer._engine._turns import Turns
from mlinfer._errors import ComponentError, RecordErrors
from mlinfer._failpoints import failpoint
from mlinfer._progress import Progress
from mlinfer._rejects import Rejected, mark_delivered
from mlinfer._watching import same_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlinfer._clock import Clock
    from mlinfer._engine._outputs import Output, Outputs
    from mlinfer._engine._spending import Spending
    from mlinfer._engine._tally import Tally
    from mlinfer._layout import Layout

COMMIT_BYTES = 64 * 2**20


class Delivery:
    """One main writer with the rejects and side tables beside it. Lanes may share it, and take turns."""

    def __init__(self, main: Output, outputs: Outputs, run: Running) -> None:
        self._main, self._outputs, self._run = main, outputs, run
        self._turns = Turns()
        self._model, self._fingerprint = run.model, run.fingerprint
        self._layout: Layout | None = None
        self._held: list[Answers] = []
        self._bytes = 0
        self._last_commit = run.clock.monotonic()

    def deliver(self, answers: Answers) -> None:
        """Hand a batch to the destination: rejects first, then answers; durable after the next commit.

        Raises RejectsError when the budget for rejects is spent; the batch is then not written.
        """
        self._run.spending.spend(answers)
        with self._turns:
            self._turn_to(answers.layout)
            begun = self._run.clock.monotonic()
            self._keep(self._write(answers))
            self._run.tally.written(answers, self._run.clock.monotonic() - begun)
            if self._bytes >= COMMIT_BYTES:
                self._commit()

    def commit_if_due(self) -> None:
        """Commit when the last one is long enough ago."""
        with self._turns:
            if self._held and self._run.clock.monotonic() - self._last_commit >= self._run.commit_seconds:
                self._commit()

    def commit(self, *, even_nothing: bool = False) -> None:
        """Make all that was delivered durable now."""
        with self._turns:
            if self._held or even_nothing:
                self._commit()

    def _turn_to(self, layout: Layout | None) -> None:
        """What comes next is the answer of this version: a commit never holds answers of two."""
        before, self._layout = self._layout, layout or self._layout
        if layout is None or layout is before:
            return
        if before is not None and not same_model(before.signature, layout.signature) and self._held:
            self._commit()
        self._model = f"{layout.signature.model_id}@{layout.signature.version}"
        self._fingerprint = fingerprint(layout, self._run.beside)

    def _write(self, answers: Answers) -> Answers:
        """Write one batch; what the destination names as bad becomes rejects."""
        answers = self._write_main(answers)
        self._write_rejects(answers.rejects)
        if self._run.replaying and self._marks_join:
            self._write_rejects(_marks([answers]))
        for name, table in answers.sides.items():
            if (side := self._outputs.sides.get(name)) is not None and table.num_rows:
                side.write(replace(answers.batch, records=table))
        return answers

    def _write_main(self, answers: Answers) -> Answers:
        while True:
            try:
                failpoint("dest.write.before")
                if len(answers.batch):
                    self._main.writer.write(answers.batch)
                failpoint("dest.write.after")
            except RecordErrors as errors:
                behind = len(answers.batch)
                answers = _without(answers, errors)
                self._run.spending.spend_late(answers.rejects[-1], errors.rows, behind)  # none is written yet
            else:
                return answers

    def _write_rejects(self, groups: tuple[Rejected, ...]) -> None:
        rejects = self._outputs.rejects
        if rejects is None:
            return
        failpoint("rejects.write.before")
        for group in groups:
            table = group.envelopes(
                self._model, self._run.run, self._run.clock.now(), pipeline=self._run.pipeline
            )
            rejects.write(Batch(table, group.partition, None, group.ids))
        failpoint("rejects.write.after")

    def _keep(self, answers: Answers) -> None:
        self._held.append(answers)
        self._bytes += answers.batch.records.nbytes

    def _commit(self) -> None:
        begun = self._run.clock.monotonic()
        while True:
            progress = self._progress()
            # rejects first: a position must not pass a reject that is not durable
            self._commit_beside(progress)
            try:
                failpoint("dest.commit.before")
                self._main.writer.commit(progress)
                failpoint("dest.commit.after")
            except RecordErrors as errors:
                self._write_again(errors)
            else:
                break
        if self._outputs.checkpoint is not None:
            self._outputs.checkpoint.commit(progress)
        for output in filter(None, [self._outputs.rejects, *self._outputs.sides.values()]):
            output.follow(progress)
        if self._run.replaying and not self._marks_join:
            self._mark(progress)
        held, self._held, self._bytes = self._held, [], 0
        self._last_commit = self._run.clock.monotonic()
        self._run.tally.committed(tuple(progress.positions), held, self._last_commit - begun)
        self._run.durable(progress.positions)

    @property
    def _marks_join(self) -> bool:
        """Whether the marks of a replay are stored in the transaction of the answers."""
        return self._outputs.rejects is not None and self._outputs.rejects.joined

    def _mark(self, progress: Progress) -> None:
        """Close the rejects that a replay has delivered: behind the answers, for a mark without one would lose a record."""
        rejects = self._outputs.rejects
        if rejects is not None:
            self._write_rejects(_marks(self._held))
            rejects.commit(progress)

    def _commit_beside(self, progress: Progress) -> None:
        beside = [self._outputs.rejects, *self._outputs.sides.values()]
        for output in beside:
            if output is not None and not output.joined:
                output.commit(progress)

    def _progress(self) -> Progress:
        positions: dict[str, Position] = {}
        states: dict[str, bytes] = {}
        for answers in self._held:
            if answers.batch.position is not None:
                positions[answers.batch.partition] = answers.batch.position
            if answers.state is not None:
                states[answers.batch.partition] = answers.state
        check_positions(positions)
        return Progress(positions, states, self._fingerprint)

    def _write_again(self, errors: RecordErrors) -> None:
        """The destination found bad records only now, and has dropped all since the last commit: write the others."""
        held, self._held, self._bytes = self._held, [], 0
        start, total = 0, sum(len(answers.batch) for answers in held)
        _check_rows(errors, total)
        for answers in held:
            found = [n for n, row in enumerate(errors.rows) if start <= row < start + len(answers.batch)]
            here = answers
            if found:
                rows = [errors.rows[n] - start for n in found]
                here = _without(
                    answers,
                    RecordErrors(rows, [errors.kinds[n] for n in found], [errors.messages[n] for n in found]),
                )
                self._run.spending.spend_late(here.rejects[-1], rows, total - start)
            start += len(answers.batch)
            here = self._write_main(here)
            self._write_rejects(here.rejects[len(answers.rejects) :])
            self._keep(here)


@dataclass(frozen=True, slots=True)
class Running:
    """What all deliveries of a session share: the run's names, its clock, its counts, and who waits for durability."""

    model: str
    run: str
    fingerprint: str
    clock: Clock
    tally: Tally
    spending: Spending
    durable: Callable[[Mapping[str, Position]], None]
    commit_seconds: float = 1.0
    pipeline: str = ""
    replaying: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)


def _marks(held: list[Answers]) -> tuple[Rejected, ...]:
    return tuple(mark_delivered(one.batch.partition, one.batch.ids) for one in held if len(one.batch))


def _without(answers: Answers, errors: RecordErrors) -> Answers:
    """The answers that the destination can take; the others as rejects of the stage `write`."""
    _check_rows(errors, len(answers.batch))
    batch, bad = answers.batch, set(errors.rows)
    before = refused_rows(answers)
    left = (
        [row for row in range(len(batch) + len(before)) if row not in before] if before else range(len(batch))
    )
    rest = [row for row in range(len(batch)) if row not in bad]
    refused = chosen_rows(batch.records, errors.rows)
    group = Rejected(
        batch.partition, "write", batch.ids.take(errors.rows), errors.kinds, errors.messages, refused,
        places=[left[row] for row in errors.rows],
    )  # fmt: skip
    records = chosen_rows(batch.records, rest)
    remaining = replace(batch, records=records, ids=batch.ids.take(rest))
    return replace(answers, answered=remaining, rejects=(*answers.rejects, group))


def refused_rows(answers: Answers) -> dict[int, tuple[str, str]]:
    """Which rows of a batch, as it was delivered, the destination has refused, and why: a kind and a message."""
    return {
        int(row): (kind, message)
        for group in answers.rejects
        if group.stage == "write" and group.places is not None
        for row, kind, message in zip(group.places, group.kinds, group.messages, strict=True)
    }


def _check_rows(errors: RecordErrors, count: int) -> None:
    """Raise ComponentError if these cannot be rows of what the destination was given: nothing is dropped by guess."""
    rows = set(errors.rows)
    if not rows or len(rows) != len(errors.rows) or not rows.issubset(range(count)):
        msg = f"the destination raised RecordErrors for rows {errors.rows[:5]} of {count}; name rows that it was given, each once"
        raise ComponentError(msg) from errors
