"""Progress in a file of its own, for destinations that cannot store it with their records."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlinfer import durable
from mlinfer._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlinfer._protocols import Scope

ANEW = "anew"
"""The fingerprint of progress that is none yet: a run has begun anew, and nothing of it is committed."""


@dataclass(frozen=True)
class Checkpoint:
    """Keeps a pipeline's progress in a small checksummed file, replaced atomically at every commit.

    The records are written first, so after a crash the last ones are delivered again: at-least-once, or exactly-once
    in effect where the destination is keyed.
    """

    path: str | os.PathLike[str]

    @contextmanager
    def open(self, scope: Scope) -> Iterator[CheckpointFile]:
        """Take the file for one run. Raises FencedError while another run holds it, ChangedError if it is damaged."""
        path = Path(self.path)
        if scope.read_only:
            yield CheckpointFile(path, _read(path))
            return
        with ExitStack() as stack:
            with durable.naming(path):
                durable.make_folder(path.parent)
                stack.enter_context(durable.locked(path, "checkpoint", scope.run))
                durable.remove_leftovers(path.parent, f"{path.name}.")
                found = Progress() if scope.fresh else _read(path)
                if scope.fresh:  # who dies after this is followed by a run that begins anew, too
                    durable.replace(path, Progress(fingerprint=ANEW).to_json().encode())
            yield CheckpointFile(path, replace(found, epoch=found.epoch + 1))


@dataclass
class CheckpointFile:
    """An open checkpoint."""

    path: Path
    progress: Progress
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def committed(self) -> Progress:
        """All that is stored."""
        return self.progress

    def commit(self, progress: Progress) -> None:
        """Store what has changed; returns when it is on disk. Raises ComponentError: the disk is full, or the like."""
        with self._lock, durable.naming(self.path):  # lanes with writers of their own share one checkpoint
            merged = replace(self.progress.merged(progress), epoch=self.progress.epoch)
            durable.replace(self.path, merged.to_json().encode())
            self.progress = merged


def _read(path: Path) -> Progress:
    text = durable.read(path)
    return Progress() if text is None else Progress.from_json(text, str(path))
