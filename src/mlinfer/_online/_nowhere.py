"""Where answers go that nobody keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlinfer._protocols import DataDestination, Scope

if TYPE_CHECKING:
    import pyarrow as pa

    from mlinfer._batch import Batch
    from mlinfer._engine import Answers
    from mlinfer._online._backlog import Stored
    from mlinfer._online._counts import Counts
    from mlinfer._progress import Progress


class Nowhere(DataDestination):
    """Keeps nothing. A server with this destination has no log, and no thread that writes one."""

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[Nowhere]:
        """Nothing to open."""
        del schema, scope
        yield self

    def write(self, batch: Batch) -> None:
        """Forget it."""

    def commit(self, progress: Progress) -> None:
        """Nothing to keep."""


class NoLog:
    """Takes answers as a log does."""

    counts: Counts | None = None
    dropped = 0

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Forget them."""
        del answers
        if stored is not None:
            stored(None)
