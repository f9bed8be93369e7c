"""A run as one line that is drawn again and again."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO

from mlinfer import (
    BatchWritten,
    ProgressCommitted,
    RecordsRejected,
    RetryScheduled,
    RunEnded,
    RunStarted,
    observer,
)

DRAW_SECONDS = 0.1
LINE_SECONDS = 10.0
WIDEST_BAR = 24
ERASE = "\r\x1b[K"


class ProgressBar:
    """Shows rows, rows per second, rejects and, where the source can count its records, the time that is left.

    Args:
        stream: where to draw; standard error if there is none. In a terminal one line is drawn again at most ten times
            a second; anywhere else a plain line is written every ten seconds.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._out: TextIO | None = None
        self._done = self._durable = self._rejected = 0
        self._begin("", None)

    @observer
    def run_started(self, event: RunStarted) -> None:
        """Draw the first line."""
        with self._lock:
            self._begin(event.name, event.expected)
            self._out = self._stream or sys.stderr
            self._terminal = self._out.isatty()
            self._show()

    @observer
    def batch_written(self, event: BatchWritten) -> None:
        """Count, and draw if the last line is old enough."""
        with self._lock:
            self._done += event.records
            self._show()

    @observer
    def records_rejected(self, event: RecordsRejected) -> None:
        """Count."""
        with self._lock:
            self._rejected += sum(event.reasons.values())
            self._show()

    @observer
    def progress_committed(self, event: ProgressCommitted) -> None:
        """Count what is durable."""
        with self._lock:
            self._durable += event.records

    @observer
    def retry_scheduled(self, event: RetryScheduled) -> None:
        """Say why nothing moves; what was written since the last commit is written again, and counted then."""
        with self._lock:
            self._done = self._durable
            self._write(f"retrying in {event.wait:.1f} s: {event.reason}", ends=True)

    @observer
    def run_ended(self, event: RunEnded) -> None:
        """Draw the last line, with the report's own numbers."""
        with self._lock:
            if self._out is None:  # the run ended before it started
                return
            self._done, self._rejected = event.report.delivered, event.report.rejected
            if self._terminal:
                self._write(self._line(), ends=True)
            self._out = None

    def _begin(self, name: str, expected: int | None) -> None:
        self._name, self._expected = name, expected
        self._done = self._durable = self._rejected = 0
        self._terminal = False
        self._begun = time.monotonic()
        self._drawn = self._begun - DRAW_SECONDS

    def _show(self) -> None:
        now = time.monotonic()
        if self._out is not None and now - self._drawn >= (DRAW_SECONDS if self._terminal else LINE_SECONDS):
            self._drawn = now
            self._write(self._line(), ends=not self._terminal)

    def _write(self, line: str, *, ends: bool) -> None:
        if self._out is not None:
            self._out.write(f"{ERASE if self._terminal else ''}{line}{chr(10) if ends else ''}")
            self._out.flush()

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rows = self._done + self._rejected
        rate = rows / seconds
        facts = [f"{rows:,} rows", f"{rate:,.0f}/s", f"{self._rejected:,} rejected"]
        if self._expected:
            share = min(rows / self._expected, 1.0)
            facts.insert(0, f"{share:4.0%}")
            left = (self._expected - rows) / rate if rows else None
            if left is not None and left > 0:
                facts.append(f"{_clock(left)} left")
        columns = shutil.get_terminal_size().columns if self._terminal else 200
        line = "  ".join([self._name, *facts])
        room = min(columns - len(line) - 3, WIDEST_BAR)
        if self._expected and self._terminal and room >= 4:  # noqa: PLR2004 - a shorter bar shows nothing
            line = "  ".join([self._name, _bar(share, room, self._out), *facts])
        return line[: columns - 1]


def _bar(share: float, width: int, out: TextIO | None) -> str:
    full = int(share * width)
    done, left = ("━", "╌") if "utf" in (getattr(out, "encoding", None) or "").lower() else ("#", ".")
    return done * full + left * (width - full)


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
