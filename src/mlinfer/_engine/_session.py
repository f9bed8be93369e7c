"""One attempt at a run: everything opened in order, lanes at work, everything closed."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from mlinfer._engine._contract import gave_up, names_of
from mlinfer._engine._delivery import Delivery, Running
from mlinfer._engine._fingerprint import beside, fingerprint
from mlinfer._engine._lane import Lane
from mlinfer._engine._outputs import Outputs, resume_from, stored
from mlinfer._engine._own_output import refuse_before_opening, refuse_own_output
from mlinfer._engine._plan import demand
from mlinfer._engine._pool import Pool, Timed, open_model, shared_cores
from mlinfer._engine._portion import MOST_RECORDS, Portion
from mlinfer._engine._redelivery import Redelivery
from mlinfer._engine._step import Step
from mlinfer._engine._workers import ProcessModel
from mlinfer._errors import ConfigError
from mlinfer._failpoints import failpoint
from mlinfer._lineage import Lineage
from mlinfer._protocols import Model, Scope, SideTables, Stateful

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from mlinfer._batch import Position
    from mlinfer._clock import Clock
    from mlinfer._engine._job import Job, Until
    from mlinfer._engine._signals import Stop
    from mlinfer._engine._spending import Spending
    from mlinfer._engine._tally import Tally
    from mlinfer._guarantee import Guarantee
    from mlinfer._progress import Progress

POLL_SECONDS = 0.2
ABANDON_SECONDS = 1.0
ASK_AGAIN_SECONDS = 1.0
MOST_LANES = 64


class Session:
    """Opens host, destination and source, in this order: no record is taken before it can be delivered."""

    def __init__(self, job: Job, scope: Scope, clock: Clock, *, tally: Tally, spending: Spending) -> None:
        self.job, self.scope, self.clock, self.tally = job, scope, clock, tally
        self._spending = spending
        self.aborted, self.draining = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self._lane_ended = threading.Event()
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._known: set[str] = set()
        self._more_may_come = False
        self._durable: dict[str, Position] = {}
        self._abandoned = False

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self, stack: ExitStack, epochs: dict[str, int]) -> None:
        """Open everything, in order. Raises ConfigError or a part's own error; then nothing was written."""
        models = self._open_models(stack)
        self.layout = self.job.lay_out(models[0].signature)
        self._lineage = Lineage(models[0].signature, self.scope.run, self.clock)
        self.guarantee: Guarantee = demand(self.job, stateful=self.stateful)
        self._beside = beside(self.job)
        self.fingerprint = fingerprint(self.layout, self._beside)
        side_schemas = models[0].side_schemas() if isinstance(models[0], SideTables) else {}
        refuse_before_opening(self.job, lambda: names_of(self.job.source))
        try:
            self._open_outputs(stack, epochs, side_schemas)
        except ConfigError:
            if self.scope.fresh or resume_from(stored(self.job, self.scope), self.fingerprint, self.job):
                raise
            self.scope = replace(self.scope, fresh=True)  # the output has the fields of another model
            self._open_outputs(stack, epochs, side_schemas)
        self.resumed = bool(self.progress.positions)
        self.portion = Portion(max(self.job.batching.max_records, MOST_RECORDS))
        self.timed = Timed(self.clock, self.tally.inferred, self.portion.took, self.job.retry, self.aborted)
        self.pool = Pool([self.step(model) for model in models], self.timed)
        stack.callback(lambda: self.pool.close(wait=not self._abandoned))

    def step(self, model: Model) -> Step:
        """The step of this pipeline with one of its models."""
        kind = Redelivery if self.job.replaying else Step
        return kind(
            model,
            self.layout,
            self.job.batching.max_records,
            lineage=self._lineage,
            renewed=self.tally.renewed,
            spending=self._spending,
        )

    def may_resume(self) -> bool:
        """Whether the stored progress belongs to this model. Raises ChangedError if it does not and must not change."""
        return resume_from(self.progress, self.fingerprint, self.job)

    def _open_outputs(
        self, stack: ExitStack, epochs: dict[str, int], side_schemas: Mapping[str, pa.Schema]
    ) -> None:
        with ExitStack() as opening:  # closed again when opening fails halfway
            self.outputs = opening.enter_context(Outputs(self.job, self.scope, epochs))
            self.progress: Progress = self.outputs.open(self.layout.output, side_schemas)
            stack.push(opening.pop_all())

    def _open_models(self, stack: ExitStack) -> list[Model]:
        job, count = self.job, self.job.workers.count
        if job.timeout is not None or job.workers.kind == "process":
            models: list[Model] = []
            for _ in range(count):
                child = ProcessModel(job.host, job.timeout, count)
                stack.callback(child.close)
                models.append(child)
        else:
            first = stack.enter_context(open_model(job.host))
            more = range(1, count)
            shared = job.host.shared
            models = [first, *(first if shared else stack.enter_context(open_model(job.host)) for _ in more)]
        self.stateful = isinstance(models[0], Stateful)
        return models

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, until: Until, stop: Stop) -> None:
        """Deliver all partitions; returns when they end or after a drain. Raises the first failure of any lane."""
        self._list_partitions()
        self._more_may_come = not self.job.source.bounded
        if stop.is_set():
            self._drain()
        with shared_cores(self.pool.size):
            interrupt = self._work(until, stop)
        if self.failure is None and self.scope.fresh and not self.tally.commits:
            self._shared.commit(even_nothing=True)  # a run that begins anew and finds nothing leaves nothing
        if (failure := self.failure or interrupt) is not None:
            raise failure
        if self.draining.is_set():
            failpoint("drain.end")

    def _work(self, until: Until, stop: Stop) -> KeyboardInterrupt | None:
        """Let the lanes work to their end; gives the interrupt that made them drain."""
        lanes = self._lanes()
        for lane in lanes:
            lane.start()
        try:
            try:
                self._wait(lanes, until, stop)
            except KeyboardInterrupt as error:  # in a notebook nobody turns the signal into a drain for us
                if stop.is_set():
                    raise
                stop.ask("KeyboardInterrupt")
                self._wait(lanes, until, stop)
                return error
        except BaseException as error:  # the lanes are told to end; raised again
            self._abandoned = isinstance(error, KeyboardInterrupt)
            self.fail(None)
            raise
        finally:
            self._join(lanes)
        return None

    def _join(self, lanes: list[Lane]) -> None:
        """Wait for the lanes; not for long when somebody insists on an end and a model is busy."""
        latest = self.clock.monotonic() + ABANDON_SECONDS
        for lane in lanes:
            lane.join(max(0.0, latest - self.clock.monotonic()) if self._abandoned else None)

    def _lanes(self) -> list[Lane]:
        count = max(self.job.workers.count, os.cpu_count() or 1)
        lanes = min(count, len(self._waiting)) if self.job.source.bounded else MOST_LANES
        self._lane_count = max(count, 1)
        # every model busy, and for each lane one batch more to write meanwhile
        self.most_flying = 1 + -(-self.pool.size // max(lanes, 1))
        running = Running(
            model=f"{self.layout.signature.model_id}@{self.layout.signature.version}",
            run=self.scope.run, fingerprint=self.fingerprint, clock=self.clock, tally=self.tally,
            spending=self._spending, durable=self._note_durable, commit_seconds=self.job.destination.commit_seconds,
            pipeline=self.job.name or "", replaying=self.job.replaying, beside=self._beside,
        )  # fmt: skip
        first = self.outputs.main
        assert first is not None  # noqa: S101 - open() has set it
        shared = self._shared = Delivery(first, self.outputs, running)
        alone = not self.job.destination.concurrent or self.stateful
        deliveries = [
            shared if alone or not n else Delivery(self.outputs.another_main(), self.outputs, running)
            for n in range(max(lanes, 1))
        ]
        return [Lane(self, delivery, number) for number, delivery in enumerate(deliveries)]

    def _wait(self, lanes: list[Lane], until: Until, stop: Stop) -> None:
        asked = self.clock.monotonic()
        quiet = 0
        while any(lane.is_alive() for lane in lanes):
            if stop.is_set() and not self.draining.is_set():
                self._drain()
            if self.clock.wait(self._lane_ended, POLL_SECONDS):
                self._lane_ended.clear()
            if self.job.source.bounded or self.draining.is_set():
                continue
            if self.clock.monotonic() - asked >= ASK_AGAIN_SECONDS:
                self._list_partitions()
                asked = self.clock.monotonic()
                quiet = quiet + 1 if self._quiet(lanes) else 0
                if until == "idle" and quiet > 1:
                    self._drain()

    def _quiet(self, lanes: list[Lane]) -> bool:
        with self._lock:
            waiting = len(self._waiting)
        return not waiting and all(lane.idle for lane in lanes if lane.is_alive())

    def _drain(self) -> None:
        failpoint("drain.begin")
        self.draining.set()
        with self._lock:
            self._waiting.clear()

    def _list_partitions(self) -> None:
        found = [name for name in names_of(self.job.source) if name not in self._known]
        refuse_own_output(self.job, found)
        with self._lock:
            self._waiting.extend(found)
            self._known.update(found)

    # --- what lanes ask ----------------------------------------------------------------------------------------------

    def next_partition(self) -> str | None:
        """The next partition to deliver; waits for one if more may come. None: there is nothing left for this lane."""
        while True:
            with self._lock:
                if self._waiting and not self.draining.is_set():
                    return self._waiting.popleft()
                if not self._more_may_come:
                    return None
            if self.draining.is_set() or self.clock.wait(self.aborted, POLL_SECONDS):
                return None

    def plenty_waits(self) -> bool:
        """Whether there is a partition for every other lane as well: then all cores are busy without reading ahead."""
        with self._lock:
            return not self._more_may_come and len(self._waiting) >= self._lane_count - 1

    def lane_ended(self) -> None:
        """Wake the thread that waits for the lanes."""
        self._lane_ended.set()

    def fail(self, error: BaseException | None) -> None:
        """End the session; the first error is the one that is told."""
        if isinstance(error, SystemExit):
            error = gave_up(error)
        with self._lock:
            self.failure = self.failure or error
        self.aborted.set()

    def _note_durable(self, positions: Mapping[str, Position]) -> None:
        with self._lock:
            self._durable.update(positions)

    def take_durable(self, partition: str) -> Position | None:
        """The position up to which a partition has become durable since this was last asked."""
        with self._lock:
            return self._durable.pop(partition, None)
