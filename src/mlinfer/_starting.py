"""A SIGTERM that comes before `mlinfer run` has begun, or after it is over, must not end it by a signal.

Imported before everything else: most of the time until a run begins is spent on imports.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

VERBS = ("run", "serve")


def _end_in_peace(*_: object) -> None:
    os._exit(0)  # nothing has begun, so there is nothing to finish


def heed() -> None:
    """Heed SIGTERM from now on, if this is the program and not one that uses the library, nor a worker of either."""
    program = sys.argv[0].rpartition("/")[2] if sys.argv else ""
    ours = program == "mlinfer" or (program == "-m" and "mlinfer" in sys.orig_argv)
    if ours and sys.argv[1:2] and sys.argv[1] in VERBS and "--multiprocessing-fork" not in sys.orig_argv:
        signal.signal(signal.SIGTERM, _end_in_peace)


def after_the_end(handler: Any) -> Any:
    """What follows on this handler when a run is over: in the program nothing that would change its exit code."""
    return signal.SIG_IGN if handler is _end_in_peace else handler


def over() -> None:
    """What was to be done has failed, perhaps before it began: a SIGTERM changes nothing about that any more."""
    if signal.getsignal(signal.SIGTERM) is _end_in_peace:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


heed()
