"""Models at work: steps on a few threads, each with its own model, their transient failures waited out in place."""

from __future__ import annotations

import os
import queue
import random
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlinfer._engine._closing import Closing
from mlinfer._engine._contract import check_model
from mlinfer._engine._step import Answers, Step
from mlinfer._errors import ComponentError, SchemaError, TransientError
from mlinfer._failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlinfer._batch import Batch
    from mlinfer._clock import Clock
    from mlinfer._protocols import Host, Model
    from mlinfer._retry import Retry

_dice = random.Random()  # noqa: S311 - jitter, not a secret


@contextmanager
def open_model(host: Host) -> Iterator[Model]:
    """Load a host's model."""
    failpoint("host.load.before")
    with Closing(host.open(), "host", host) as model:
        check_model(model, host)
        failpoint("host.load.after")
        yield model


@contextmanager
def shared_cores(models: int) -> Iterator[None]:
    """While the block runs, each of several models at work has its share of the cores for products of matrices.

    Else each of them would use all cores at once, and the library's threads, which wait busily for the next product, would
    keep the others from theirs. The limit is one for the process, and so the first run's that has one.
    """
    if models == 1:
        yield
        return
    from threadpoolctl import threadpool_limits  # scikit-learn needs it, and most runs do not

    with threadpool_limits(max(1, (os.cpu_count() or 1) // models), user_api="blas"):
        yield


class Pool:
    """The models at work: each for one batch at a time, on the caller's thread or on one of a number of threads.

    Whoever submits batches puts the results in order by keeping the futures in order.
    """

    def __init__(self, steps: list[Step], timed: Timed) -> None:
        self.size = len(steps)
        self._timed = timed
        self._free: queue.SimpleQueue[Step] = queue.SimpleQueue()
        for step in steps:
            self._free.put(step)
        self._work: queue.SimpleQueue[tuple[Future[Answers], Batch] | None] = queue.SimpleQueue()
        # daemons, unlike those of ThreadPoolExecutor: a model that is busy must not keep an interrupted program alive
        self._threads = [
            threading.Thread(target=self._serve, name="mlinfer-infer", daemon=True) for _ in steps
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, batch: Batch) -> Answers:
        """Infer a batch here, as soon as a model is free."""
        step = self._free.get()
        try:
            return self._timed(step, batch)
        finally:
            self._free.put(step)

    def submit(self, batch: Batch) -> Future[Answers]:
        """Infer a batch when a model is free."""
        future: Future[Answers] = Future()
        self._work.put((future, batch))
        return future

    def close(self, *, wait: bool = True) -> None:
        """Finish what was begun, and nothing else; without `wait` not even that."""
        with suppress(queue.Empty):
            while (item := self._work.get_nowait()) is not None:
                item[0].cancel()
        for _ in self._threads:
            self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            future, batch = item
            try:
                future.set_result(self(batch))
            except BaseException as error:  # noqa: BLE001 - handed to the lane that asked
                future.set_exception(error)
            del item, future, batch  # nothing is kept while there is nothing to do


@dataclass(frozen=True, slots=True)
class Timed:
    """Runs a step, waits out its transient failures in place, and tells how long it took with them (`tell`) and without (`took`)."""

    clock: Clock
    tell: Callable[[str, int, float], None]
    took: Callable[[int, float], None]
    retry: Retry
    stopped: threading.Event

    def __call__(self, step: Step, batch: Batch) -> Answers:
        """Infer one batch. Raises ComponentError when it fails transiently too often in a row."""
        begun = asked = self.clock.monotonic()
        for failures in range(1, self.retry.attempts + 1):
            try:
                answers = step(batch)
            except SchemaError as error:  # one file of many may be unlike the others
                found = f"{error.found} in {batch.partition}"
                raise SchemaError(error.field, error.wanted, found, error.advice) from error
            except TransientError as error:
                if failures == self.retry.attempts:
                    msg = f"the model failed {failures} times in a row: {error}"
                    raise ComponentError(msg) from error
                if self.clock.wait(self.stopped, self.retry.wait(failures, error.wait, _dice)):
                    raise
                asked = self.clock.monotonic()
            else:
                break
        now = self.clock.monotonic()
        self.took(len(batch), now - asked)
        self.tell(batch.partition, len(batch), now - begun)
        return answers
