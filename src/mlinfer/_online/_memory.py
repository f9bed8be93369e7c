"""How much memory this process may take, and how much it has taken."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SOFT = 0.9
"""Of the memory there may be: from here on requests are taken one at a time."""
_GROUPS, _OWN, _TAKEN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/self/statm")


def memory_limit(groups: Path = _GROUPS, own: Path = _OWN) -> int | None:
    """Bytes that the control groups of this process allow, the smallest of them; None: there is no limit that one can read."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            top, name = (
                (groups / "memory", "memory.limit_in_bytes") if controllers else (groups, "memory.max")
            )
            here = top / path.lstrip("/")  # inside a container it may not be there, and the top is its own
            for folder in (here, *here.parents):
                with suppress(OSError, ValueError):  # "max" is no number
                    found.append(int((folder / name).read_text()))
                if folder == top:
                    break
    return min(found, default=None)


def memory_taken() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    try:
        return int(_TAKEN.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
