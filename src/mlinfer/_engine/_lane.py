"""One partition at a time from reader to destination, in order: on one thread, or with threads beside it that read and infer ahead."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from mlinfer._engine._closing import Closing
from mlinfer._engine._contract import check_batch
from mlinfer._engine._pool import open_model
from mlinfer._engine._portion import MOMENT_SECONDS
from mlinfer._errors import EndOfInput
from mlinfer._failpoints import failpoint
from mlinfer._inbox import Inbox
from mlinfer._protocols import Acknowledges, Drains, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from mlinfer._batch import Batch, Position
    from mlinfer._engine._delivery import Delivery
    from mlinfer._engine._session import Session
    from mlinfer._engine._step import Answers

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
        try:
            with ExitStack() as stack:
                infer = self._sequential(partition, stack) if self._session.stateful else None
                if self._session.plenty_waits():
                    self._straight(feeder, infer or self._session.pool)
                else:
                    self._read_ahead(feeder, infer)
        finally:
            self.idle = True

    def _straight(self, feeder: Feeder, infer: Callable[[Batch], Answers]) -> None:
        """Read, infer and write on this thread: the other lanes keep the other cores busy, handing over only costs."""
        session, inbox, more = self._session, feeder.inbox, True
        with feeder.opened():
            while not session.aborted.is_set():
                latest = session.clock.monotonic() + MOMENT_SECONDS  # for who waits behind slow ones
                while more and inbox.holds_less(session.portion.records) and not session.aborted.is_set():
                    more = feeder.try_on()
                    if feeder.idle or session.clock.monotonic() > latest:
                        break
                batch = inbox.take(session.portion.records, 0)
                if batch is not None:
                    self._hand_over(infer(batch))
                elif not more:
                    break
                self._delivery.commit_if_due()
            self._commit()  # also in front of a failure: what was read before it counts
            if feeder.error is not None:
                raise feeder.error
            feeder.acknowledge()

    def _read_ahead(self, feeder: Feeder, infer: Callable[[Batch], Answers] | None) -> None:
        """Read on a thread beside this one, and infer on those of the pool."""
        feeder.start()
        try:
            self._pass_on(feeder, infer)
            self._commit()
        finally:
            feeder.settle()
        if feeder.error is not None:
            raise feeder.error

    def _commit(self) -> None:
        if not self._session.aborted.is_set():
            self._delivery.commit()

    def _pass_on(self, feeder: Feeder, infer: Callable[[Batch], Answers] | None) -> None:
        session, inbox = self._session, feeder.inbox
        flying: deque[Future[Answers]] = deque()
        while not session.aborted.is_set():
            while len(flying) < session.most_flying:
                batch = inbox.take(session.portion.records, 0 if flying else IDLE_SECONDS)
                if batch is None:
                    break
                self.idle = False
                if infer is not None:
                    self._hand_over(infer(batch))
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

    def _sequential(self, partition: str, stack: ExitStack) -> Callable[[Batch], Answers]:
        """A model of its own for this partition, with the memory that an earlier run left."""
        model = stack.enter_context(open_model(self._session.job.host))
        step = self._session.step(model)
        step.resume(self._session.progress.states.get(partition))
        return partial(self._session.timed, step)


class Feeder(threading.Thread):
    """Reads one partition for its lane, on the lane's own thread or ahead of it; one thread touches the reader."""

    def __init__(self, session: Session, partition: str) -> None:
        super().__init__(name=f"mlinfer-read-{partition}"[:60], daemon=True)
        self._session, self._partition = session, partition
        self.inbox = Inbox(lambda: session.portion.records, session.job.batching.max_bytes)
        self.error: BaseException | None = None
        self.idle = False
        self._reader: Reader
        self._draining = False
        self._settled = threading.Event()

    def run(self) -> None:
        """Read until the end, then wait until all is durable so that it can be acknowledged."""
        try:
            with self.opened():
                # Settled before the end: the lane has failed, and waits for this thread before it says so.
                while not (self._session.aborted.is_set() or self._settled.is_set()) and self.read_on():
                    pass
                self.inbox.end()
                self._settled.wait()
                self.acknowledge()
        except BaseException as error:  # noqa: BLE001 - handed to the lane
            self.error = error
        finally:
            self.inbox.end()

    def settle(self) -> None:
        """The lane has finished: acknowledge, close, end."""
        self.inbox.close()
        self._settled.set()
        self.join()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the partition behind what is durable of it; for the thread that reads."""
        session = self._session
        failpoint("source.open")
        after = session.progress.positions.get(self._partition)
        opening = session.job.source.open(self._partition, after, session.layout.wanted)
        with Closing(opening, "source", session.job.source) as self._reader:
            yield

    def try_on(self) -> bool:
        """Like `read_on`, with a failure as an end; it is kept in `error`."""
        try:
            return self.read_on()
        except BaseException as error:  # noqa: BLE001 - raised by the lane when what came before is durable
            self.error, self.idle = error, False
            return False

    def read_on(self) -> bool:
        """Put what comes next into the inbox, and acknowledge what is durable; False: there is nothing more."""
        session = self._session
        if session.draining.is_set() and not self._draining:
            self._draining = True
            if not isinstance(self._reader, Drains):
                return False
            self._reader.drain()
        begun = session.clock.monotonic()
        failpoint("source.read.before")
        try:
            batch = self._reader.read(session.portion.records, IDLE_SECONDS)
        except EndOfInput:
            return False
        failpoint("source.read.after")
        self.idle = batch is None
        if batch is not None:
            check_batch(batch, self._partition, session.job.source)
            session.tally.read(self._partition, len(batch), session.clock.monotonic() - begun)
            self.inbox.put(batch, wait=threading.current_thread() is self)
        self.acknowledge()
        return True

    def acknowledge(self) -> None:
        """Tell the reader how far its records have become durable."""
        position: Position | None = self._session.take_durable(self._partition)
        if position is not None and isinstance(self._reader, Acknowledges):
            failpoint("source.acknowledge.before")
            self._reader.acknowledge(position)
            failpoint("source.acknowledge.after")
