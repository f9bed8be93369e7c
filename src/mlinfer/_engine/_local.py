"""The engine for one machine."""

from __future__ import annotations

import random
import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mlinfer._clock import Clock, SystemClock
from mlinfer._engine._session import Session
from mlinfer._engine._signals import Stop, stopping_on_signals
from mlinfer._engine._spending import Spending, listed
from mlinfer._engine._tally import Tally
from mlinfer._errors import ComponentError, MlinferError, RejectsError, TransientError
from mlinfer._events import RunEnded, RunStarted, manager
from mlinfer._protocols import Counts, Scope
from mlinfer._text import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlinfer._engine._job import Job, Until
    from mlinfer._report import RunReport

FEWEST_JUDGED = 20
"""Records of a run: of fewer, one bad record is a large share."""


class LocalEngine:
    """Runs a job on threads of this process, and on processes where the job asks for them."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()

    def run(
        self, job: Job, *, until: Until = "end", from_start: bool = False, stop: Stop | None = None
    ) -> RunReport:
        """Run a job to its end, or until it is stopped; see `InferencePipeline.run`."""
        hooks = manager(job.observers)
        run = Run(job, self.clock, Tally(hooks), stop or Stop())
        error: BaseException | None = None
        try:
            with stopping_on_signals(run.stop):
                run.attempts(until, fresh=from_start, started=hooks.hook.run_started)
        except BaseException as found:  # told to the observers, and raised again
            error = found
            raise
        finally:
            report = run.report()
            hooks.hook.run_ended(event=RunEnded(report, type(error).__name__ if error else None))
        return report


class Run:
    """One run: session after session, each beginning where the last commit was, until one ends well."""

    def __init__(self, job: Job, clock: Clock, tally: Tally, stop: Stop) -> None:
        self.job, self.clock, self.tally, self.stop = job, clock, tally, stop
        self.id = secrets.token_hex(8)
        self.begun = clock.monotonic()
        self.guarantee = "unknown"
        self.resumed = False
        self._epochs: dict[str, int] = {}
        self._dice = random.Random()  # noqa: S311 - jitter, not a secret

    def attempts(self, until: Until, *, fresh: bool, started: Callable[..., object]) -> None:
        """Run, and after a transient failure wait and begin again after the last commit."""
        failures, commits = 0, 0
        while True:
            spending = Spending(  # what was not committed is read again, and counted then
                self.job.budget, rejects_kept=self.job.rejects is not None, already=self.tally.rejected
            )
            try:
                self._session(until, spending, fresh=fresh and not self.tally.commits, started=started)
            except TransientError as error:
                failures = 1 if self.tally.commits > commits else failures + 1
                commits = self.tally.commits
                if self._wait(error, failures):
                    break  # asked to stop with nothing in flight: what was committed is the end
            else:
                break
        self._judge_short_run()

    def _judge_short_run(self) -> None:
        """A run that ended before its budget's window was full is judged as a whole.

        Raises RejectsError: nothing could be answered, so it is not the records that are at fault; or, from FEWEST_JUDGED
        records on, too large a share was rejected. A replay may: its records were bad before.
        """
        tally, budget = self.tally, self.job.budget
        records = tally.delivered + tally.rejected
        if not tally.rejected or self.stop.is_set() or budget.ratio == 1:
            return
        kept = "they are kept with the rejects, and mended ones can be replayed"
        if not tally.delivered:
            msg = (
                f"every record of the run was rejected, {records:,} of {records:,}; by reason: {listed(tally.reasons)}; "
                f"{kept}; to allow it: Budget(ratio=1)"
            )
            raise RejectsError(msg)
        if budget.ratio is None or self.job.replaying or not FEWEST_JUDGED <= records < budget.window:
            return
        if tally.rejected > budget.ratio * records:
            msg = (
                f"budget: wanted at most {budget.ratio:.1%} rejects, found {tally.rejected / records:.1%} of the run's "
                f"{records:,} records; by reason: {listed(tally.reasons)}; {kept}; to allow more: Budget(ratio=...)"
            )
            raise RejectsError(msg)

    def report(self) -> RunReport:
        """The account so far."""
        seconds = self.clock.monotonic() - self.begun
        return self.tally.report(
            self.job.name or "unnamed",
            self.id,
            self.guarantee,
            seconds,
            resumed=self.resumed,
            stopped=self.stop.reason,
        )

    def _wait(self, error: TransientError, failures: int) -> bool:
        """Wait before the next attempt; says whether somebody asked to stop meanwhile."""
        if self.job.source.resume == "none" or failures >= self.job.retry.attempts:
            why = (
                "its source cannot be read again"
                if self.job.source.resume == "none"
                else f"{failures} times in a row"
            )
            msg = f"the run failed, {why}: {error}"
            raise ComponentError(msg) from error
        wait = self.job.retry.wait(failures, error.wait, self._dice)
        self.tally.retried(plain(str(error)), failures, wait)
        return self.clock.wait(self.stop, wait)

    def _session(
        self, until: Until, spending: Spending, *, fresh: bool, started: Callable[..., object]
    ) -> None:
        scope = Scope(self.job.name or "", run=self.id, fresh=fresh)
        session = Session(self.job, scope, self.clock, tally=self.tally, spending=spending)
        with ExitStack() as stack:
            session.open(stack, self._epochs)
            if not session.may_resume():
                stack.close()
                self._session(until, spending, fresh=True, started=started)
                return
            if self.guarantee == "unknown":
                self.guarantee, self.resumed = (
                    str(session.guarantee),
                    session.resumed and not self.job.replaying,
                )
                self._tell(started, session)
            session.run(until, self.stop)

    def _tell(self, started: Callable[..., object], session: Session) -> None:
        signature = session.layout.signature
        model = f"{signature.model_id}@{signature.version}"
        expected = _expected(session) if self.job.observers else None
        started(event=RunStarted(self.job.name or "unnamed", self.id, self.guarantee, model, expected))


def _expected(session: Session) -> int | None:
    """The number of records still to come; None where the source cannot tell, or is not asked to end."""
    source, positions = session.job.source, session.progress.positions
    if not (source.bounded and isinstance(source, Counts)):
        return None
    try:
        counts = [source.remaining(name, positions.get(name)) for name in source.partitions()]
    except MlinferError:
        return None  # what is wrong with a partition is told by the lane that reads it
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
