"""A worker of a crew as its parent knows it: the process, the pipe to it, and what it has said."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from mlinfer._engine import spawn
from mlinfer._layout import Layout
from mlinfer._online._counts import Figures
from mlinfer._online._desk import Thread
from mlinfer._online._worker import Task, live
from mlinfer._protocols import Host
from mlinfer._text import in_words


class Member:
    """A process, and what it has said."""

    def __init__(self, host: Host, task: Task) -> None:
        self._pipe, self.process = spawn("mlinfer-worker", live, host, task, daemon=False)
        self._teller = Thread("mlinfer-tell")  # a worker that takes nothing must not hold up the others
        self.layout: Layout | None = None
        self.serving = self.gone = False
        self.figures = Figures()
        self.error: Exception | None = None

    def hear(self) -> Iterator[tuple[str, Any]]:
        """What it says, until it has ended."""
        while True:
            try:
                kind, *what = self._pipe.recv()
            except (EOFError, OSError):
                break
            yield kind, what
        while self.process.exitcode is None:
            self.process.join(1)
        self._teller.close()
        self._pipe.close()

    def tell(self, *what: object) -> None:
        """Tell it something, soon; one that has ended need not know."""
        self._teller.do(lambda: self._send(what))

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def _send(self, what: tuple[object, ...]) -> None:
        try:
            self._pipe.send(what)
        except OSError:
            return

    def how_it_ended(self) -> str:
        """In words."""
        code = self.process.exitcode or 0
        if self.error is not None:
            return in_words(self.error)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
