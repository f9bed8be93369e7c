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
    ConfigError,
    DataDestination,
    FencedError,
    Progress,
    Scope,
    durable,
    located,
)
from mlinfer.destinations._if_exists import IfExists, check_if_exists
from mlinfer.destinations._parquet_making import check_writable
from mlinfer.destinations._parquet_parts import (
    Owner,
    Part,
    differences,
    in_force,
    merged,
    number_of,
    remove,
    survey,
    temporary_prefix,
)
from mlinfer.destinations._parquet_writer import Claim, PartsWriter
from mlinfer.destinations._pruning import prune_parts


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

    def owns(self, name: str) -> bool:
        """Whether this is the name of a part."""
        return number_of(name) is not None

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
        claim = Claim(scope, epoch, owner, merged(current))
        writer = PartsWriter(place, schema, claim, self.compression, alone=self.if_exists != "append")
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
