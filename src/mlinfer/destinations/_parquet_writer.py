"""Writes the parts of one run, and publishes each in the step that commits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from mlinfer import Batch, ComponentError, FencedError, Progress, Scope, durable, failpoint
from mlinfer.destinations._parquet_making import PartFile, physical_schema
from mlinfer.destinations._parquet_parts import (
    Mark,
    Owner,
    is_nobodys,
    name_of,
    numbers,
    read_mark,
    remove,
    temporary_prefix,
)

GROUP_ROWS = 65_536
GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Claim:
    """What a writer stands for: its scope, epoch and owner, and the progress it found."""

    scope: Scope
    epoch: int
    owner: Owner
    progress: Progress


class PartsWriter:
    """Writes row groups into a part, and publishes it with the commit. `alone`: nobody else may write to the folder."""

    def __init__(
        self, folder: Path, schema: pa.Schema, claim: Claim, compression: str, *, alone: bool
    ) -> None:
        self._folder, self._schema, self._claim = folder, schema, claim
        self._compression, self._alone = compression, alone
        self._progress = claim.progress
        self._part: PartFile | None = None
        self._buffer: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        self._last = -1
        self.obsolete: list[Path] = []
        self.known: set[str] = set()

    def write(self, batch: Batch) -> None:
        """Buffer records; a full row group goes to disk. Raises ComponentError: it cannot be written."""
        self._buffer.append(batch.records)
        self._rows += len(batch)
        self._bytes += batch.records.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            with self._naming():
                self._flush()

    def commit(self, progress: Progress) -> None:
        """Publish the part: its records and the progress appear in one step.

        Raises FencedError: another run has committed since this one began; ComponentError: it cannot be written.
        """
        scope, epoch = self._claim.scope, self._claim.epoch
        mark = Mark(
            self._claim.owner, scope.run, epoch, scope.fresh, replace(progress, epoch=epoch), self._schema
        )
        with self._naming():
            self._flush()
            if any(path.exists() for path in self.obsolete):
                self._replace(mark)
            part = self._part or self._begin(None)
            part.finish(mark)
            self._part = None  # it is closed: whoever is refused now, and commits again, begins another
            try:
                self._publish(part)
            except FencedError:
                durable.remove(part.path)
                raise
        self.obsolete = []
        self._progress = self._progress.merged(progress)

    def committed(self) -> Progress:
        """What was found when this writer was opened, and what it has committed since."""
        return replace(self._progress, epoch=self._claim.epoch)

    def abandon(self) -> None:
        """Forget what was not committed."""
        self._buffer = []
        if self._part is not None:
            self._part.abandon()
            self._part = None

    def _flush(self) -> None:
        if not self._buffer:
            return
        batches, self._buffer = self._buffer, []
        self._rows = self._bytes = 0
        part = self._part or self._begin(batches[0])
        part.write(batches)

    def _begin(self, first: pa.RecordBatch | None) -> PartFile:
        scratch = durable.temporary(
            self._folder / f"{temporary_prefix(self._claim.owner)}{self._claim.scope.run}"
        )
        failpoint("dest.begin")
        self._part = PartFile(scratch, self._schema, physical_schema(self._schema, first), self._compression)
        return self._part

    def _replace(self, mark: Mark) -> None:
        """Put an end to what was there before: an empty part says that it no longer counts, then it is removed.

        So a reader of the folder never sees the old records and the new ones together, and a run that writes at the same
        time is refused before anything is removed. The newest go first: what a crash leaves is the beginning of the old.
        """
        empty = Progress(fingerprint=mark.progress.fingerprint, epoch=mark.epoch)
        scratch = durable.temporary(self._folder / f"{temporary_prefix(self._claim.owner)}{mark.run}")
        part = PartFile(scratch, self._schema, physical_schema(self._schema, None), self._compression)
        part.finish(replace(mark, progress=empty))
        self._publish(part)
        failpoint("dest.anew")
        remove(reversed(self.obsolete))

    def _publish(self, part: PartFile) -> None:
        """Give the part the next free number.

        Before it, nobody else may have published since this run began; the link itself refuses a number that is taken;
        and after it we look once more, for a run that began anew and removed the old parts while this process slept. A
        newer run that did not begin anew has counted this part: it stays.
        """
        while True:
            target = self._folder / name_of(self._next_number())
            try:
                durable.publish(part.path, target)
            except FileExistsError:
                continue
            except FileNotFoundError as error:
                raise FencedError(self._fenced("removed the part that this run was writing")) from error
            break
        self.known.add(target.name)
        try:
            self._next_number()
        except FencedError:
            if self._begun_anew():
                durable.remove(target)
            raise

    def _begun_anew(self) -> bool:
        """Whether another run has replaced all that was here since this one began."""
        marks = filter(None, (read_mark(self._folder / name) for name in numbers(self._folder)))
        owner, run = self._claim.owner, self._claim.scope.run
        return any(
            mark.fresh and mark.owner == owner and mark.run != run and mark.epoch >= self._claim.epoch
            for mark in marks
        )

    def _next_number(self) -> int:
        found = numbers(self._folder)
        for name in found.keys() - self.known:
            self._check_other(self._folder / name)
            self.known.add(name)
        self._last = max([self._last, *found.values()])
        return self._last + 1

    def _check_other(self, path: Path) -> None:
        """Whose part has appeared? One of this very run comes from another of its writers."""
        mark = read_mark(path)
        if mark is not None and mark.owner == self._claim.owner:
            if mark.run != self._claim.scope.run:
                raise FencedError(self._fenced(f"committed {path.name}"))
        elif self._alone and not (mark and is_nobodys(path, mark)):
            whose = f"output {mark.owner[1]!r} of pipeline {mark.owner[0]!r}" if mark else "another program"
            msg = f"{self._folder}: wanted to be the only one who writes here, found {path.name} of {whose}; give each output a folder of its own"
            raise ComponentError(msg)

    def _fenced(self, what: str) -> str:
        pipeline, output = self._claim.owner
        return (
            f"{self._folder}: another run of pipeline {pipeline!r} has {what} ({output}); this one must stop"
        )

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Failures to write, with the name of the folder."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            self.abandon()
            msg = f"{self._folder}: wanted to write a part, found: {error}; make room or correct the cause, then run again: what was committed stays"
            raise ComponentError(msg) from error
