"""Run one contender as a whole process and read what the kernel counted for it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import BinaryIO

SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # as after an installation; a checkout would compile all of mlinfer in every run
}


@dataclass(frozen=True)
class Run:
    wall: float  # seconds
    cpu: float  # user and system seconds, ended children included
    peak: float  # megabytes; of the largest process, if there are several
    error: str = ""  # why it failed; empty if it ended well


@dataclass(frozen=True)
class Summary:
    wall: float
    fastest: float
    slowest: float
    cpu: float
    peak: float


def measure(command: Sequence[str], limit: float) -> Run:
    """Wall time from before the start until the kernel reports the end, limited to ``limit`` seconds."""
    with tempfile.TemporaryFile() as printed:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, **SETTINGS},
            start_new_session=True,
        )
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped: Popen must not wait for it
        error = "" if process.returncode == 0 else why(process.returncode, printed)
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, error)


def why(returncode: int, printed: BinaryIO) -> str:
    """The last line the process printed, which is the error's message in Python."""
    printed.seek(0)
    lines = printed.read().decode(errors="replace").strip().splitlines()
    return f"exit {returncode}: {lines[-1] if lines else 'nothing printed'}"


def summary(runs: Sequence[Run]) -> Summary:
    walls = [run.wall for run in runs]
    cpu, peak = median(run.cpu for run in runs), median(run.peak for run in runs)
    return Summary(median(walls), min(walls), max(walls), cpu, peak)
