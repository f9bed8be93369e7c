"""Progress in a file of its own, for destinations that cannot store it with their records."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlinfer import durable
from mlinfer._envelope import Envelope
from mlinfer._errors import ChangedError, ConfigError
from mlinfer._progress import ENVELOPE, Progress
from mlinfer._resolve import located

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlinfer._protocols import Scope

SEALED = Envelope(ENVELOPE.kind, 2, ENVELOPE.repair)
"""Format 2 says whose progress it is; format 1 was the bare progress."""

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
        """Take the file for one run.

        Raises FencedError while another run holds it, ChangedError if it is damaged, ConfigError if it is another pipeline's.
        """
        path, owner = located(self.path), (scope.pipeline, scope.output)
        durable.expect_reachable(path)
        if path.is_dir():
            msg = f"checkpoint: wanted the path of a file, found the folder {path}; name a file in it"
            raise ConfigError(msg)
        if scope.read_only:
            durable.expect_writable(path.parent)
            yield CheckpointFile(path, _read(path, owner), owner)
            return
        with ExitStack() as stack:
            with durable.naming(path):
                durable.make_folder(path.parent)
                stack.enter_context(durable.locked(path, "checkpoint", scope.run))
                durable.remove_leftovers(path.parent, f"{path.name}.")
                found = _read(path, owner, fresh=scope.fresh)
                if scope.fresh:  # who dies after this is followed by a run that begins anew, too
                    durable.replace(path, _sealed(Progress(fingerprint=ANEW), owner))
            yield CheckpointFile(path, replace(found, epoch=found.epoch + 1), owner)


@dataclass
class CheckpointFile:
    """An open checkpoint."""

    path: Path
    progress: Progress
    owner: tuple[str, str]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._place = self.path.absolute()  # a model may change the folder that the process is in

    def committed(self) -> Progress:
        """All that is stored."""
        return self.progress

    def commit(self, progress: Progress) -> None:
        """Store what has changed; returns when it is on disk. Raises ComponentError: the disk is full, or the like."""
        with self._lock, durable.naming(self.path):  # lanes with writers of their own share one checkpoint
            merged = replace(self.progress.merged(progress), epoch=self.progress.epoch)
            durable.replace(self._place, _sealed(merged, self.owner))
            self.progress = merged


def _sealed(progress: Progress, owner: tuple[str, str]) -> bytes:
    pipeline, output = owner
    return SEALED.seal({"pipeline": pipeline, "output": output, "progress": progress.to_json()}).encode()


def _read(path: Path, owner: tuple[str, str], *, fresh: bool = False) -> Progress:
    """What is kept for this pipeline; with `fresh` nothing, and damage does not matter."""
    text = durable.read(path)
    if text is None:
        return Progress()
    try:
        body = SEALED.unseal(text, str(path))
    except ChangedError:
        if fresh:
            return Progress()
        raise
    found = (body["pipeline"], body["output"]) if body["format"] > 1 else owner
    if found != owner:
        msg = (
            f"{path}: wanted the progress of pipeline {owner[0]!r}, found that of pipeline {found[0]!r}; "
            "name a checkpoint of its own for each pipeline, or remove the file if that one is gone for good"
        )
        raise ConfigError(msg)
    if fresh:
        return Progress()
    return Progress.from_json(text if body["format"] == 1 else body["progress"], str(path))
