"""Named places where a test can make the process die, stop or fail; inert otherwise.

`MLINFER_FAILPOINTS="dest.commit.after=kill@3;host.infer.before=sleep(0.5)@p0.1"` together with `MLINFER_TEST=1`
kills the process at the third commit and makes every tenth inference slow. The table of actions is closed.
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

NAMES = frozenset(
    """
    source.open source.read.before source.read.after source.decode host.load.before host.load.after
    host.infer.before host.infer.after host.swap.before host.swap.after dest.begin dest.write.before
    dest.write.partial dest.write.after progress.write.tmp progress.fsync progress.rename dest.commit.before
    dest.commit.after source.acknowledge.before source.acknowledge.after rejects.write.before rejects.write.after
    drain.begin drain.end server.parse server.enqueue server.dequeue server.respond
    """.split()
)
_ERRORS: dict[str, Callable[[], Exception]] = {
    "transient": lambda: TransientError("a failpoint asked for a transient error"),
    "component": lambda: ComponentError("a failpoint asked for an error"),
    "value": lambda: ValueError("a failpoint asked for an error"),
    "memory": lambda: MemoryError("a failpoint asked for an error"),
    "eio": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "enospc": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
}
_SPEC = re.compile(
    r"(?P<name>[a-z.]+)=(?P<action>kill|exit|hang|sleep|raise)(\((?P<argument>[a-z0-9.]+)\))?(@(?P<when>p?[0-9.]+))?"
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
        if self.action == "exit":
            os._exit(int(self.argument or 1))
        if self.action in {"sleep", "hang"}:
            time.sleep(float(self.argument or 3600))
        if self.action == "raise":
            error = _ERRORS[self.argument or "component"]()
            raise error


_active: dict[str, _Failpoint] = {}
_dice = random.Random(os.environ.get("MLINFER_FAILPOINTS_SEED", "0"))  # noqa: S311 - reproducible on purpose


def failpoint(name: str) -> None:
    """Do nothing, unless a test has armed this place."""
    if _active and name in _active:
        _active[name].hit(_dice)


def arm(spec: str) -> None:
    """Arm the places that the specification names (see the module's text); replaces what was armed before.

    Raises ConfigError: an unknown place or action.
    """
    armed = {}
    for item in filter(None, (part.strip() for part in spec.split(";"))):
        match = _SPEC.fullmatch(item)
        if match is None or match["name"] not in NAMES:
            msg = f"failpoints: wanted NAME=ACTION(ARGUMENT)@WHEN with a known name, found {item!r}"
            raise ConfigError(msg)
        if match["action"] == "raise" and (match["argument"] or "component") not in _ERRORS:
            msg = f"failpoints: wanted one of the errors {', '.join(sorted(_ERRORS))}, found {match['argument']!r}"
            raise ConfigError(msg)
        when = match["when"] or ""
        chance = float(when[1:]) if when.startswith("p") else 0.0
        at = int(when) if when and not chance else 0
        armed[match["name"]] = _Failpoint(match["action"], match["argument"] or "", at, chance)
    _active.clear()
    _active.update(armed)


if os.environ.get("MLINFER_TEST") == "1" and os.environ.get("MLINFER_FAILPOINTS"):
    arm(os.environ["MLINFER_FAILPOINTS"])
