"""Models at work: steps on a few threads, each with its own model, and models that live in a process of their own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import random
import sys
import threading
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlinfer._engine._closing import Closing
from mlinfer._engine._step import Answers, Step
from mlinfer._errors import (
    ComponentError,
    ConfigError,
    MlinferError,
    RecordErrors,
    SchemaError,
    TransientError,
)
from mlinfer._failpoints import failpoint
from mlinfer._isolate import Foreign
from mlinfer._protocols import Renews, SideTables, Stateful
from mlinfer._signature import Signature
from mlinfer._text import count
from mlinfer._watching import same_model, watches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from mlinfer._batch import Batch
    from mlinfer._clock import Clock
    from mlinfer._protocols import Host, Model
    from mlinfer._retry import Retry

_REMEMBERS = (
    "workers: wanted a model that keeps nothing between calls, for a worker process may be replaced at any time; found one "
    "with a memory or side tables; use thread workers without timeout="
)
NEWER = b"newer?"
"""What a child is asked between two batches if its host watches its model; records are never this short."""
_dice = random.Random()  # noqa: S311 - jitter, not a secret


UNGUARDED = (
    "a script that uses process workers or timeout= is run once more by each worker, so it must guard its start with "
    'if __name__ == "__main__":'
)


@contextmanager
def open_model(host: Host) -> Iterator[Model]:
    """Load a host's model."""
    failpoint("host.load.before")
    with Closing(host.open(), "host", host) as model:
        failpoint("host.load.after")
        yield model


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
    """Runs a step, waits out its transient failures in place, and tells how long it took."""

    clock: Clock
    tell: Callable[[str, int, float], None]
    retry: Retry
    stopped: threading.Event

    def __call__(self, step: Step, batch: Batch) -> Answers:
        """Infer one batch. Raises ComponentError when it fails transiently too often in a row."""
        begun = self.clock.monotonic()
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
            else:
                break
        self.tell(batch.partition, len(batch), self.clock.monotonic() - begun)
        return answers


class ProcessModel:
    """A model in a child process: Python models run beside each other, a hanging or dying one can be replaced.

    Batches travel over an inherited pipe as Arrow IPC. `timeout` is in seconds for one call, None for no limit. The child
    loads its model by itself: several can be started at once, each is waited for when it is first needed.
    """

    def __init__(self, host: Host, timeout: float | None) -> None:
        self._host, self._timeout = host, timeout
        self._signature: Signature | None = None
        self._renews = watches(host)
        self._answers_as: Signature | None = None
        self._start()

    @property
    def signature(self) -> Signature:
        """The model's own, as the child reported it."""
        return self._ready()

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Ask the child. Raises what its model raised, TimeoutError, or ChildProcessError when the child died."""
        found = self._ready()
        if self._renews and self._answers_as is not None and not same_model(found, self._answers_as):
            msg = "the model's process was replaced, and its successor has loaded a newer version"
            raise TransientError(msg)  # in the middle of a batch: the whole batch is asked again
        try:
            self._pipe.send_bytes(to_bytes(records))
            if not self._pipe.poll(self._timeout):
                self._replace()
                msg = f"no answer within {self._timeout:g} s for {count(records.num_rows, 'record')}; the model was ended"
                raise TimeoutError(msg)
            answer = self._pipe.recv_bytes()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            self._replace()
            msg = f"the model's process died over {count(records.num_rows, 'record')}"
            raise ChildProcessError(msg) from error
        if answer[:1] == b"e":
            raise self._pipe.recv()
        return from_bytes(answer[1:])

    def newer(self) -> ProcessModel | None:
        """Let the child turn to the newest version. Raises ConfigError: there is one that cannot be taken."""
        if not self._renews:
            return None
        self._answers_as = self._ready()
        try:
            self._pipe.send_bytes(NEWER)
            found = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._replace()
            found = self._ready()
        if isinstance(found, Exception):
            raise found
        self._signature = self._answers_as = found
        return self

    def close(self) -> None:
        """End the child."""
        self._pipe.close()
        with suppress(ValueError):  # it was let go of before
            self._child.join(timeout=1)
            if self._child.is_alive():
                self._child.kill()
                self._child.join()
            self._child.close()  # its pipes would else stay until the garbage is collected

    def _start(self) -> None:
        self._pipe, self._child = spawn("mlinfer-model", _live, self._host)
        self._gone, self._signature = False, None

    def _ready(self) -> Signature:
        """Wait until the child has loaded its model; a successor starts when it is needed: often the run ends instead."""
        if self._gone:
            self._start()
        if self._signature is None:
            self._signature = self._greeting()
        return self._signature

    def _greeting(self) -> Signature:
        try:
            found = self._pipe.recv()
        except EOFError as error:
            msg = f"a worker process ended before its model was loaded; {UNGUARDED}"
            raise ConfigError(msg) from error
        if isinstance(found, Exception):
            self.close()
            raise found
        return found  # type: ignore[no-any-return]

    def _replace(self) -> None:
        self._child.kill()
        self.close()
        self._gone = True


def spawn(
    name: str, life: Callable[..., None], host: Host, *more: object, daemon: bool = True
) -> tuple[Connection, SpawnProcess]:
    """Start a process that does `life(pipe, host, *more)`; gives this end of its pipe, and the process.

    Raises ConfigError: the host cannot be sent to it, or this is such a process itself.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(UNGUARDED)  # this is a worker, running the script that started it once more
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=life, args=(theirs, host, *more), name=name, daemon=daemon)
    try:
        child.start()
    except OSError:
        ours.close()
        raise
    except Exception as error:  # what pickling raises has no common root
        ours.close()
        msg = (
            f"the host {type(host).__name__} cannot be sent to a worker process ({error}); "
            "define its function at the top level of a module, or do without worker processes and timeout="
        )
        raise ConfigError(msg) from error
    finally:
        theirs.close()
    return ours, child


def end_here() -> None:
    """End a child at once, as a forked one does: to take its libraries apart takes long."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(0)


def leave_signals() -> None:
    """A child does not hear what is meant for its parent: that one drains, and says or shows when it has finished."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _live(pipe: Connection, host: Host) -> None:
    """The child's whole life."""
    threading.Thread(target=_end_with_parent, name="mlinfer-parent", daemon=True).start()
    # the parent closed its end in the middle of a word: it has told what there is to tell
    with suppress(OSError):
        _serve(pipe, host)
    end_here()


def _end_with_parent() -> None:
    """A killed parent tells nobody to end, and a model that is busy does not notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _serve(pipe: Connection, host: Host) -> None:
    """The child: load the model, say what it is, answer until the parent is gone."""
    leave_signals()
    with ExitStack() as stack:
        try:
            model = stack.enter_context(open_model(host))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent raises it
            pipe.send(portable(error))
            return
        if isinstance(model, Stateful | SideTables):
            pipe.send(ConfigError(_REMEMBERS))
            return
        gc.freeze()  # what was loaded stays: it need not be searched for garbage again and again
        pipe.send(model.signature)
        while True:
            try:
                asked = pipe.recv_bytes()
            except (EOFError, OSError):
                return
            if asked == NEWER:
                model = _newest(pipe, model)
            else:
                _answer(pipe, model, from_bytes(asked))


def _newest(pipe: Connection, model: Model) -> Model:
    """Turn to the newest version, and say which that is."""
    try:
        found = model.newer() if isinstance(model, Renews) else None
    except ConfigError as error:
        pipe.send(error)
        return model
    model = found or model
    pipe.send(model.signature)
    return model


def _answer(pipe: Connection, model: Model, records: pa.RecordBatch) -> None:
    try:
        found: Any = model.infer(records)
        if isinstance(found, pa.RecordBatch):
            pipe.send_bytes(b"a" + to_bytes(found))
            return
        found = ComponentError(
            f"the model answered with {type(found).__name__}, wanted a pyarrow.RecordBatch"
        )
    except SystemExit as error:  # in the words of a step whose model does so on a thread
        found = portable(RuntimeError(f"the model called sys.exit({error.code!r})"))
    except BaseException as error:  # noqa: BLE001 - the parent raises it; no signal of a user's comes here
        found = portable(error)
    pipe.send_bytes(b"e")
    pipe.send(found)


def portable(error: BaseException) -> Exception:
    """Errors of strangers may not survive the pipe; ours do."""
    if isinstance(error, MlinferError | RecordErrors | MemoryError):
        return error
    return Foreign(f"{type(error).__name__}: {error}")


def to_bytes(records: pa.RecordBatch) -> bytes:
    """Records as they travel over a pipe: a stream of Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, records.schema) as writer:
        writer.write_batch(records)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes) -> pa.RecordBatch:
    """What `to_bytes` made of them."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_next_batch()
