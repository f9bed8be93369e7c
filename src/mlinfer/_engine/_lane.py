"""One partition at a time from reader to destination: a thread that reads ahead, and one that delivers in order."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mlinfer._engine._step import Answers, Step
from mlinfer._engine._workers import open_model
from mlinfer._errors import EndOfInput
from mlinfer._failpoints import failpoint
from mlinfer._inbox import Inbox
from mlinfer._protocols import Acknowledges, Drains, Reader

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mlinfer._batch import Position
    from mlinfer._engine._delivery import Delivery
    from mlinfer._engine._session import Session

READ_RECORDS = 32_768
IDLE_SECONDS = 0.2


class Lane(threading.Thread):
    """Works through partitions until the session has no more for it."""

    def __init__(self, session: Session, delivery: Delivery, number: int) -> None:
        super().__init__(name=f"mlinfer-lane-{number}", daemon=True)
        self._session, self._delivery = session, delivery
        self.idle = True

    def run(self) -> None:
        """Take partitions and deliver them; the first failure of any lane ends the session."""
        try:
            while (partition := self._session.next_partition()) is not None:
                self._deliver(partition)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that runs the session
            self._session.fail(error)
        finally:
            self._session.lane_ended()

    def _deliver(self, partition: str) -> None:
        self.idle = False
        feeder = Feeder(self._session, partition)
        feeder.start()
        try:
            with ExitStack() as stack:
                infer = self._sequential(partition, stack) if self._session.stateful else None
                self._pass_on(feeder, infer)
                if not self._session.aborted.is_set():
                    self._delivery.commit()
        finally:
            feeder.settle()
            self.idle = True
        if feeder.error is not None:
            raise feeder.error

    def _pass_on(self, feeder: Feeder, infer: Step | None) -> None:
        session, inbox = self._session, feeder.inbox
        flying: deque[Future[Answers]] = deque()
        while not session.aborted.is_set():
            while len(flying) < session.most_flying:
                batch = inbox.take(session.take_records, 0 if flying else IDLE_SECONDS)
                if batch is None:
                    break
                if infer is not None:
                    self._hand_over(session.timed(infer, batch))
                    break
                flying.append(session.pool.submit(batch))
            self.idle = not flying and feeder.idle
            if flying:
                self._hand_over(flying.popleft().result())
            elif inbox.drained:
                return
            self._delivery.commit_if_due()

    def _hand_over(self, answers: Answers) -> None:
        if not self._session.aborted.is_set():  # else the destination may be closed already
            self._delivery.deliver(answers)

    def _sequential(self, partition: str, stack: ExitStack) -> Step:
        """A model of its own for this partition, with the memory that an earlier run left."""
        model = stack.enter_context(open_model(self._session.job.host))
        step = self._session.step(model)
        step.resume(self._session.progress.states.get(partition))
        return step


class Feeder(threading.Thread):
    """Reads one partition ahead of its lane; the only thread that touches its reader."""

    def __init__(self, session: Session, partition: str) -> None:
        super().__init__(name=f"mlinfer-read-{partition}"[:60], daemon=True)
        self._session, self._partition = session, partition
        batching = session.job.batching
        self._records = max(batching.max_records, READ_RECORDS)
        self.inbox = Inbox(2 * self._records, batching.max_bytes)
        self.error: BaseException | None = None
        self.idle = False
        self._settled = threading.Event()

    def run(self) -> None:
        """Read until the end, then wait until all is durable so that it can be acknowledged."""
        session = self._session
        try:
            failpoint("source.open")
            after = session.progress.positions.get(self._partition)
            with session.job.source.open(self._partition, after, session.layout.wanted) as reader:
                self._read_all(reader)
                self.inbox.end()
                self._settled.wait()
                self._acknowledge(reader)
        except BaseException as error:  # noqa: BLE001 - handed to the lane
            self.error = error
        finally:
            self.inbox.end()

    def settle(self) -> None:
        """The lane has finished: acknowledge, close, end."""
        self.inbox.close()
        self._settled.set()
        self.join()

    def _read_all(self, reader: Reader) -> None:
        session, draining = self._session, False
        # Settled before the end: the lane has failed, and waits for this thread before it says so.
        while not (session.aborted.is_set() or self._settled.is_set()):
            if session.draining.is_set() and not draining:
                draining = True
                if not isinstance(reader, Drains):
                    return
                reader.drain()
            begun = session.clock.monotonic()
            failpoint("source.read.before")
            try:
                batch = reader.read(self._records, IDLE_SECONDS)
            except EndOfInput:
                return
            failpoint("source.read.after")
            self.idle = batch is None
            if batch is not None:
                session.tally.read(self._partition, len(batch), session.clock.monotonic() - begun)
                self.inbox.put(batch)
            self._acknowledge(reader)

    def _acknowledge(self, reader: Reader) -> None:
        position: Position | None = self._session.take_durable(self._partition)
        if position is not None and isinstance(reader, Acknowledges):
            failpoint("source.acknowledge.before")
            reader.acknowledge(position)
            failpoint("source.acknowledge.after")
