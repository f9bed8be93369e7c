"""Named places where a test can make the process die, stop or fail; inert otherwise.

`MLINFER_FAILPOINTS="dest.commit.after=kill@3;host.infer.before=sleep(0.5)@p0.1"` together with `MLINFER_TEST=1`
kills the process at the third commit and makes every tenth inference slow (dice seeded by `MLINFER_FAILPOINTS_SEED`).
Places and actions are closed tables.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlinfer._errors import ComponentError, ConfigError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

PLACES = {
    "source.open": "before a partition is opened",
    "source.read.before": "before a reader is asked for records",
    "source.read.after": "when it has answered",
    "source.decode": "before the text of a file is taken apart",
    "host.load.before": "before a model is loaded",
    "host.load.after": "when it is there",
    "host.swap.before": "before a model is asked for a newer version of itself",
    "host.swap.after": "when a newer version has taken over",
    "host.infer.before": "before a model is asked",
    "host.infer.after": "when it has answered",
    "dest.write.before": "before a destination is handed a batch",
    "dest.write.partial": "when some of a commit's records have been handed to the disk or database, and others not",
    "dest.write.after": "when a destination has taken a batch",
    "dest.begin": "when a destination begins to store a commit",
    "dest.anew": "when a file or folder that begins anew no longer counts, and is not cut or removed yet",
    "dest.commit.before": "before a destination is asked to commit",
    "dest.commit.after": "when it has committed",
    "dest.publish": "when a finished file is flushed and does not have its name yet",
    "progress.write.tmp": "before a small file is written under its temporary name",
    "progress.fsync": "when it is written and not yet flushed",
    "progress.rename": "when it is flushed and does not have its name yet",
    "rejects.write.before": "before rejects are written",
    "rejects.write.after": "when they are",
    "source.acknowledge.before": "before a source is told what is durable",
    "source.acknowledge.after": "when it has been told",
    "drain.begin": "when a run is told to finish what is in flight",
    "drain.end": "when it has, and everything is about to be closed",
    "server.parse": "before a request is taken apart",
    "server.enqueue": "before it waits for its turn",
    "server.dequeue": "when its turn has come",
    "server.respond": "before it is answered",
}
"""Every place, and when it is reached. A test sees to it that each of them is reached in some run."""

_ERRORS: dict[str, Callable[[], Exception]] = {
    "transient": lambda: TransientError("a failpoint asked for a transient error"),
    "component": lambda: ComponentError("a failpoint asked for an error"),
    "value": lambda: ValueError("a failpoint asked for an error"),
    "memory": lambda: MemoryError("a failpoint asked for an error"),
    "eio": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "enospc": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}
ACTIONS = {
    "kill": "the process ends as by SIGKILL",
    "stop": "the process stands still as by SIGSTOP, until it is sent SIGCONT",
    "exit(CODE)": "the process ends at once with this code (1)",
    "sleep(SECONDS)": "the thread waits",
    "hang": "the thread waits for an hour",
    "raise(ERROR)": f"an error is raised: {', '.join(_ERRORS)} (component)",
    "enospc(BYTES)": "after so many bytes more (0) the disk is full",
    "partial(BYTES)": "after so many bytes more (0) the process ends as by SIGKILL, in the middle of a write",
}
"""What can happen at a place. The bytes of `enospc` and `partial` are those of mlinfer's own files, not a database's."""

_SPEC = re.compile(
    r"(?P<name>[a-z.]+)=(?P<action>kill|stop|exit|hang|sleep|raise|enospc|partial)"
    r"(\((?P<argument>[a-z0-9.]+)\))?(@(?P<when>p[01]?\.?[0-9]*|[0-9]+))?"
)


@dataclass
class _Failpoint:
    action: str
    argument: str
    at: int
    chance: float
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, dice: random.Random) -> None:
        with self.lock:
            self.hits += 1
            due = dice.random() < self.chance if self.chance else self.hits == self.at or not self.at
        if due:
            self._act()

    def _act(self) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "stop":  # sent to the process, another thread could take it while this one ran on
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        if self.action == "exit":
            os._exit(int(self.argument or 1))
        if self.action in {"sleep", "hang"}:
            time.sleep(float(self.argument or 3600))
        if self.action == "raise":
            error = _ERRORS[self.argument or "component"]()
            raise error
        if self.action in {"enospc", "partial"}:
            _room.append(_Room(int(self.argument or 0), deadly=self.action == "partial"))


@dataclass
class _Room:
    """How many bytes may still be written, and what happens then."""

    left: int
    deadly: bool

    def take(self, data: memoryview) -> memoryview:
        taken = data[: self.left]
        self.left -= len(taken)
        if taken or not len(data):
            return taken
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_active: dict[str, _Failpoint] = {}
_room: list[_Room] = []
_dice = random.Random(os.environ.get("MLINFER_FAILPOINTS_SEED", "0"))  # noqa: S311 - reproducible on purpose


def failpoint(name: str) -> None:
    """Do nothing, unless a test has armed this place."""
    if _active and name in _active:
        _active[name].hit(_dice)


def spared(data: ReadableBuffer) -> ReadableBuffer:
    """What of these bytes may be written: all of them, unless a test has made room scarce."""
    return _room[0].take(memoryview(data).cast("B")) if _room else data


def arm(spec: str) -> None:
    """Arm the places that the specification names (see the module's text); replaces what was armed before.

    Raises ConfigError: an unknown place or action.
    """
    armed = dict(_armed(item) for item in filter(None, map(str.strip, spec.split(";"))))
    _room.clear()
    _active.clear()
    _active.update(armed)


def _armed(item: str) -> tuple[str, _Failpoint]:
    match = _SPEC.fullmatch(item)
    if match is None or match["name"] not in PLACES:
        msg = (
            f"failpoints: wanted NAME=ACTION(ARGUMENT)@WHEN with a known name, found {item!r}; "
            f"names: {', '.join(PLACES)}; actions: {', '.join(ACTIONS)}"
        )
        raise ConfigError(msg)
    action, argument, when = match["action"], match["argument"] or "", match["when"] or ""
    if action == "raise" and (argument or "component") not in _ERRORS:
        msg = f"failpoints: wanted one of the errors {', '.join(sorted(_ERRORS))}, found {argument!r}"
        raise ConfigError(msg)
    try:
        float(argument or 0) if action == "sleep" else int("0" if action == "raise" else argument or 0)
        chance = float(when[1:]) if when.startswith("p") else 0.0
    except ValueError as error:
        msg = f"failpoints: wanted a number in brackets and behind @p, found {item!r}"
        raise ConfigError(msg) from error
    return match["name"], _Failpoint(action, argument, 0 if chance else int(when or 0), chance)


if os.environ.get("MLINFER_TEST") == "1" and os.environ.get("MLINFER_FAILPOINTS"):
    arm(os.environ["MLINFER_FAILPOINTS"])
