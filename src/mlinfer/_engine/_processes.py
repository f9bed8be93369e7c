"""Processes of our own: how they start and end, and what goes between them and their parent."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from mlinfer._errors import ConfigError, MlinferError, RecordErrors
from mlinfer._isolate import Foreign
from mlinfer._text import in_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from mlinfer._protocols import Host

Pipe: TypeAlias = "Connection"
"""One end of what a process and its parent speak through."""
UNGUARDED = (
    "a script that uses process workers or timeout= is run once more by each worker, so it must guard its start with "
    'if __name__ == "__main__":'
)


def spawn(
    name: str, life: Callable[..., None], host: Host, *more: object, daemon: bool = True
) -> tuple[Pipe, SpawnProcess]:
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
            f"the host {type(host).__name__} cannot be sent to a worker process ({in_words(error)}); "
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


def end_with_parent() -> None:
    """A killed parent tells nobody to end, and a model that is busy does not notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def portable(error: BaseException) -> Exception:
    """Errors of strangers may not survive the pipe; ours do."""
    if isinstance(error, MlinferError | RecordErrors | MemoryError):
        return error
    return Foreign(in_words(error))


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
