"""The harness can see loss and duplication: pipelines that are broken on purpose are caught."""

import os
import signal

from torture.figures import Figures, check
from torture.harness import tortured
from torture.oracle import Verdict


def progress_before_records(torture):
    """The progress is stored, and then the records: some are lost."""
    torture.kill_at("dest.write.partial", 2)
    return _verdict(torture).lost


def written_in_place(torture):
    """The file is written over instead of replaced: some are lost."""
    torture.kill_at("dest.write.partial", 2)
    return _verdict(torture).lost


def no_fence(torture):
    """Nobody asks whether another run has taken over: some are there twice."""
    sleeper = torture.start("dest.commit.before=stop@1")
    os.waitpid(sleeper.pid, os.WUNTRACED)
    torture.clean_run()
    sleeper.send_signal(signal.SIGCONT)
    torture.end_with_input(sleeper)
    return torture.verdict().duplicated


def acknowledged_before_the_commit(torture):
    """Messages are gone when they are read, not when their answers are stored: some are lost."""
    torture.kill_at("dest.commit.before")
    return _verdict(torture).lost


CONTROLS = {
    "progress-first": progress_before_records,
    "in-place": written_in_place,
    "unfenced": no_fence,
    "eager-queue": acknowledged_before_the_commit,
}


def caught(kind, seed, times):
    """How often the oracle sees what is wrong with one of them; it must be every time."""
    found = 0
    for n in range(times):
        with tortured(kind, seed + n) as torture:
            torture.feed(60)
            wrong = CONTROLS[kind](torture)
            check(wrong, f"not caught: {CONTROLS[kind].__doc__}", torture)
            found += wrong
    return Figures(times, Verdict(), notes=[f"{kind}: {found} wrong records seen"])


def _verdict(torture):
    torture.clean_run()
    return torture.verdict()
