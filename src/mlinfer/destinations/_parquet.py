"""A folder of Parquet part files as a destination."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from mlinfer import (
    Batch,
    ComponentError,
    ConfigError,
    DataDestination,
    FencedError,
    Progress,
    Scope,
    durable,
    failpoint,
    located,
)
from mlinfer.destinations._if_exists import IfExists, check_if_exists
from mlinfer.destinations._parquet_parts import (
    Mark,
    Owner,
    Part,
    PartFile,
    check_writable,
    differences,
    in_force,
    is_nobodys,
    merged,
    numbers,
    physical_schema,
    read_mark,
    remove,
    survey,
    temporary_prefix,
)
from mlinfer.destinations._pruning import prune_parts

GROUP_ROWS = 65_536
GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ParquetDestination(DataDestination):
    """Writes a folder of Parquet part files (`part-00000000.parquet`), one per commit.

    A part holds records and, in its footer, the progress they stand for; it appears under its final name whole and in
    one step, so both are there or neither. When two runs of one pipeline write at the same time, the one that commits
    first goes on and the other one is refused (FencedError).

    Begun anew (`run(from_start=True)`), an empty part first says that those of earlier runs no longer count, and they are
    removed; then the first new one appears. A reader of the folder never sees both.

    Args:
        path: the folder; it is made if it is missing.
        compression: `snappy`, `zstd`, `lz4` or `none`.
        if_exists: what to do with Parquet files in the folder that this pipeline has not written: `fail`, `append` (leave
            them there and add ours), or `replace` (remove them once the first part of ours has appeared).
    """

    path: str | os.PathLike[str]
    compression: str = "snappy"
    if_exists: IfExists = "fail"
    transactional = True
    holds_one_output = True
    concurrent = True

    def __post_init__(self) -> None:
        """Raise ConfigError for a choice that there is not."""
        check_if_exists(self.if_exists)

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:
        """The records of this pipeline's parts, in the order of their commits. Raises ChangedError: a part is damaged."""
        import pyarrow.parquet as pq

        ours, _ = survey(located(self.path), (scope.pipeline, scope.output))
        current, _ = in_force(ours, scope)
        for part in current:
            with pq.ParquetFile(part.path) as file:
                yield from file.iter_batches()

    def prune(self, scope: Scope, before: datetime) -> int:
        """Remove the parts of one pipeline in which every reject is older; how many rejects there were."""
        folder = located(self.path)
        return prune_parts(folder, scope, before, self.compression)

    def stored(self, scope: Scope) -> Progress:
        """The progress in the footers of this pipeline's parts. Raises ChangedError: a part is damaged."""
        ours, _ = survey(located(self.path), (scope.pipeline, scope.output))
        return merged(in_force(ours, scope)[0])

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[PartsWriter]:
        """Look at what is there, make the folder, and remove what dead runs have left.

        Raises ConfigError: the folder holds other files, or parts with other fields; ChangedError: a part is damaged;
        FencedError: a newer run has written.
        """
        folder = located(self.path)
        scope = scope if scope.run else replace(scope, run=secrets.token_hex(8))
        self._check_settings(folder, schema)
        owner = (scope.pipeline, scope.output)
        place = folder.absolute()  # a model may change the folder that the process is in
        ours, others = survey(place, owner)
        if others and self.if_exists == "fail":
            msg = (
                f"{folder}: wanted a folder without Parquet files of another origin, found {others[0].name} and {len(others) - 1} more; "
                "name another folder, or say if_exists='append' or 'replace'"
            )
            raise ConfigError(msg)
        current, replaced = in_force(ours, scope)
        _check_fields(folder, current, schema)
        epoch = _epoch(ours, scope, folder)
        obsolete = [part.path for part in replaced] + (others if self.if_exists == "replace" else [])
        if scope.read_only:
            durable.expect_writable(folder)
        else:
            _prepare(folder, owner, scope, [] if scope.fresh else replaced)
        writer = PartsWriter(self, place, schema, Claim(scope, epoch, owner, merged(current)))
        writer.obsolete, writer.known = obsolete, {path.name for path in [*(p.path for p in ours), *others]}
        try:
            yield writer
        finally:
            writer.abandon()

    def _check_settings(self, folder: Path, schema: pa.Schema) -> None:
        if folder.exists() and not folder.is_dir():
            msg = f"{folder}: wanted a folder to write parts to, found a file; name a folder"
            raise ConfigError(msg)
        check_writable(schema, self.compression, folder)


@dataclass(frozen=True)
class Claim:
    """What a writer stands for: its scope, epoch and owner, and the progress it found."""

    scope: Scope
    epoch: int
    owner: Owner
    progress: Progress


class PartsWriter:
    """Writes row groups into a part, and publishes it with the commit."""

    def __init__(self, recipe: ParquetDestination, folder: Path, schema: pa.Schema, claim: Claim) -> None:
        self._recipe, self._folder, self._schema, self._claim = recipe, folder, schema, claim
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
        self._part = PartFile(
            scratch, self._schema, physical_schema(self._schema, first), self._recipe.compression
        )
        return self._part

    def _replace(self, mark: Mark) -> None:
        """Put an end to what was there before: an empty part says that it no longer counts, then it is removed.

        So a reader of the folder never sees the old records and the new ones together, and a run that writes at the same
        time is refused before anything is removed. The newest go first: what a crash leaves is the beginning of the old.
        """
        empty = Progress(fingerprint=mark.progress.fingerprint, epoch=mark.epoch)
        scratch = durable.temporary(self._folder / f"{temporary_prefix(self._claim.owner)}{mark.run}")
        part = PartFile(scratch, self._schema, physical_schema(self._schema, None), self._recipe.compression)
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
            target = self._folder / f"part-{self._next_number():08d}.parquet"
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
        elif self._recipe.if_exists != "append" and not (mark and is_nobodys(path, mark)):
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


def _check_fields(folder: Path, current: list[Part], schema: pa.Schema) -> None:
    if current and (lines := differences(current[-1].mark.schema, schema)):
        msg = (
            f"{folder}: wanted the fields of {current[-1].path.name}, found others:\n{lines}\n"
            "name another folder, or begin anew with run(from_start=True)"
        )
        raise ConfigError(msg)


def _epoch(ours: list[Part], scope: Scope, folder: Path) -> int:
    """The epoch of this run: the next one, or the one it holds unless somebody has written since."""
    newest = max((part.mark.epoch for part in ours), default=0)
    if scope.epoch is None:
        return 0 if scope.read_only else newest + 1  # 0: nobody can write beside another run
    later = [
        part
        for part in ours
        if part.mark.epoch > scope.epoch or (part.mark.epoch == scope.epoch and part.mark.run != scope.run)
    ]
    if later:
        msg = f"{folder}: another run of pipeline {scope.pipeline!r} has committed {later[-1].path.name} ({scope.output}); this one must stop"
        raise FencedError(msg)
    return scope.epoch


def _prepare(folder: Path, owner: Owner, scope: Scope, replaced: list[Part]) -> None:
    """Make the folder; the first writer of a run clears away what dead runs have left, later ones leave siblings alone."""
    try:
        durable.make_folder(folder)
        if scope.epoch is None:
            durable.remove_leftovers(folder, temporary_prefix(owner))
            remove(part.path for part in replaced)
    except OSError as error:
        msg = f"{folder}: wanted a folder to write to, found: {error}; allow this user to write there, or name another folder"
        raise ConfigError(msg) from error
