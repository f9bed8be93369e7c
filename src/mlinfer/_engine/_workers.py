"""A model in a process of its own: the end of the pipe that asks, and the one that answers."""

from __future__ import annotations

import gc
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlinfer._engine._pool import open_model, shared_cores
from mlinfer._engine._processes import (
    UNGUARDED,
    end_here,
    end_with_parent,
    from_bytes,
    leave_signals,
    portable,
    spawn,
    to_bytes,
)
from mlinfer._errors import ComponentError, ConfigError, TransientError
from mlinfer._protocols import Renews, SideTables, Stateful
from mlinfer._signature import Signature
from mlinfer._text import count
from mlinfer._watching import same_model, watches

if TYPE_CHECKING:
    from mlinfer._engine._processes import Pipe
    from mlinfer._protocols import Host, Model

_REMEMBERS = (
    "workers: wanted a model that keeps nothing between calls, for a worker process may be replaced at any time; found one "
    "with a memory or side tables; use thread workers without timeout="
)
NEWER = b"newer?"
"""What a child is asked between two batches if its host watches its model; records are never this short."""


class ProcessModel:
    """A model in a child process: Python models run beside each other, a hanging or dying one can be replaced.

    Batches travel over an inherited pipe as Arrow IPC. `timeout` is in seconds for one call, None for no limit. The child
    loads its model by itself: several can be started at once, each is waited for when it is first needed. `count` is how
    many such children work at once.
    """

    def __init__(self, host: Host, timeout: float | None, count: int = 1) -> None:
        self._host, self._timeout, self._count = host, timeout, count
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
        self._pipe, self._child = spawn("mlinfer-model", _live, self._host, self._count)
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


def _live(pipe: Pipe, host: Host, count: int) -> None:
    """The child's whole life."""
    threading.Thread(target=end_with_parent, name="mlinfer-parent", daemon=True).start()
    # the parent closed its end in the middle of a word: it has told what there is to tell
    with suppress(OSError):
        _serve(pipe, host, count)
    end_here()


def _serve(pipe: Pipe, host: Host, count: int) -> None:
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
        stack.enter_context(shared_cores(count))
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


def _newest(pipe: Pipe, model: Model) -> Model:
    """Turn to the newest version, and say which that is."""
    try:
        found = model.newer() if isinstance(model, Renews) else None
    except ConfigError as error:
        pipe.send(error)
        return model
    model = found or model
    pipe.send(model.signature)
    return model


def _answer(pipe: Pipe, model: Model, records: pa.RecordBatch) -> None:
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
