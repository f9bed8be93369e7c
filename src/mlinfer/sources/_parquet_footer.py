"""What the end of a Parquet file says about it, checked before anything is read on its word."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlinfer import ChangedError, ComponentError
from mlinfer.sources._listing import file_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SPLIT_OVER = 256 * 2**20
RUN_BYTES = 128 * 2**20
TAIL = 8
"""The last bytes: the length of the footer and the magic word."""
MOST_EXPANDED = 256 * 2**20
MOST_RATIO = 200
READ_BUFFER = 2**17
SIGNATURE = 28
"""The bytes behind a footer that can be read although columns are encrypted."""


@dataclass(frozen=True)
class Run:
    """A partition: a file, or some consecutive row groups of it. `name` is the file's own name."""

    partition: str
    name: str
    file: Path
    groups: range | None = None


class Footer:
    """The footer of an open file."""

    def __init__(
        self, path: Path, source: pa.OSFile, file: pq.ParquetFile, identity: tuple[int, ...]
    ) -> None:
        self.path, self.file = path, file
        self._source, self._identity, self._digest = source, identity, _digest(source)

    @cached_property
    def starts(self) -> list[int]:
        """The first row of every row group, and the number of rows in all."""
        starts = [0]
        metadata = self.file.metadata
        for n in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(n).num_rows)
        return starts

    def rows_of(self, run: Run) -> tuple[int, int]:
        """The rows of a partition. Raises ChangedError: the file has no such row groups any more."""
        groups = run.groups or range(len(self.starts) - 1)
        if groups.stop >= len(self.starts):
            msg = f"{self.path}: wanted row groups {groups.start} to {groups.stop}, found {len(self.starts) - 1}; the file was replaced: begin anew"
            raise ChangedError(msg)
        return self.starts[groups.start], self.starts[groups.stop]

    def groups_from(self, row: int, end: int) -> tuple[list[int], int]:
        """The row groups that hold the rows from `row` to `end`, and how many rows of the first come before."""
        groups = [n for n, start in enumerate(self.starts[:-1]) if start < end and row < self.starts[n + 1]]
        return groups, row - self.starts[groups[0]]

    def size_of(self, group: int) -> int:
        """How many rows a row group holds."""
        return self.starts[group + 1] - self.starts[group]

    @property
    def signed(self) -> bool:
        """Whether some columns are encrypted: to ask for the sizes of these would end the process."""
        return bool(_length(self._source) - self.file.metadata.serialized_size == SIGNATURE)

    def expect_readable(self, columns: Sequence[str]) -> None:
        """Raises ComponentError: one of these columns is encrypted."""
        if not self.signed or not self.file.metadata.num_row_groups:
            return
        for name in columns:
            try:
                next(self.file.iter_batches(1, row_groups=[0], columns=[name], use_threads=False), None)
            except (OSError, pa.ArrowException) as error:
                msg = f"{self.path}: wanted a column {name!r} that can be read, found an encrypted one; write the file again without encryption"
                raise ComponentError(msg) from error

    def chunks(self, columns: Sequence[str]) -> list[Any]:
        """The column chunks of these columns, nested ones with all they hold, of every row group."""
        metadata = self.file.metadata
        if not metadata.num_row_groups:
            return []
        paths = [metadata.schema.column(n).path for n in range(metadata.num_columns)]
        places = [
            n
            for n, path in enumerate(paths)
            if any(path == name or path.startswith(f"{name}.") for name in columns)
        ]
        return [metadata.row_group(g).column(n) for g in range(metadata.num_row_groups) for n in places]

    def bytes_per_row(self, columns: Sequence[str]) -> int:
        """About how much memory a row takes, at least 1."""
        size = sum(chunk.total_uncompressed_size for chunk in self.chunks(columns))
        return int(max(1, size // max(1, self.starts[-1])))

    def check_sizes(self, columns: Sequence[str]) -> None:
        """Raises ComponentError: a small file claims to unpack into far more than real data does."""
        for chunk in self.chunks(columns):
            packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
            if unpacked > MOST_EXPANDED and unpacked > MOST_RATIO * packed:
                msg = (
                    f"{self.path}: wanted column chunks of at most {MOST_EXPANDED >> 20} MiB or {MOST_RATIO} times their packed "
                    f"size, found {chunk.path_in_schema!r} with {unpacked} bytes out of {packed}; "
                    "if the file is to be trusted, write it again with smaller row groups"
                )
                raise ComponentError(msg)

    def position(self, row: int) -> dict[str, int | str]:
        """Where to go on at this row, and how to tell that it is still this file."""
        return {"row": row, "size": self._identity[0], "footer": self._digest}

    def check_unchanged(self) -> None:
        """Raises ChangedError: somebody has written to the file since it was opened; one that was removed may be."""
        try:
            now = _identity(self.path.stat())
        except FileNotFoundError:
            return
        if now != self._identity:
            msg = f"{self.path}: wanted a file that stays as it is while it is read, found it changed; put files in place whole, by renaming them"
            raise ChangedError(msg)

    def reader(self, read_dictionary: Sequence[str]) -> pq.ParquetFile:
        """Reads the file, these columns as dictionaries.

        Through a small buffer: as fast as whole column chunks, with bounded memory. Not mapped into memory: a file that
        is cut short meanwhile would then end the process.
        """
        import pyarrow.parquet as pq

        return pq.ParquetFile(
            self._source, metadata=self.file.metadata, read_dictionary=list(read_dictionary), pre_buffer=False,
            buffer_size=READ_BUFFER, coerce_int96_timestamp_unit="us", page_checksum_verification=True,
        )  # fmt: skip


@contextmanager
def read_footer(path: Path) -> Iterator[Footer]:
    """Open a file and read its footer. Raises ComponentError: it is not there, not Parquet, or damaged."""
    import pyarrow.parquet as pq

    try:
        source = pa.OSFile(os.fspath(path))
    except OSError as error:
        msg = f"{path}: wanted to read a Parquet file, found {said(error)}; put it back, or allow this user to read it"
        raise ComponentError(msg) from error
    with source:
        try:
            identity = _identity(path.stat())
            file = pq.ParquetFile(source, coerce_int96_timestamp_unit="us")
            _check_counts(file.metadata)
            file.schema_arrow  # noqa: B018 - decodes the types, which may fail as well
        except (OSError, pa.ArrowException, ValueError) as error:
            found = "an empty file" if not source.size() else said(error).rstrip(".")
            msg = f"{path}: wanted a Parquet file, found {found}; restore it, or remove it from the input"
            raise ComponentError(msg) from error
        yield Footer(path, source, file, identity)


def said(error: Exception) -> str:
    """An error's text on one line, without what a terminal might obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(error).split()))


def row_group_runs(name: str, path: Path) -> list[str]:
    """The names of a file's partitions; they follow from the file alone. Raises ComponentError: it is damaged."""
    if path.stat().st_size <= SPLIT_OVER:
        return [name]
    with read_footer(path) as footer:
        metadata = footer.file.metadata
        if footer.signed:
            return [name]
        cuts, size = [0], 0
        for n in range(metadata.num_row_groups):
            group = metadata.row_group(n)
            size += sum(group.column(c).total_compressed_size for c in range(group.num_columns))
            if size >= RUN_BYTES or n == metadata.num_row_groups - 1:
                cuts.append(n + 1)
                size = 0
    runs = [f"{name}[{start}:{stop}]" for start, stop in pairwise(cuts)]
    return runs if len(runs) > 1 else [name]


def run_of(path: str | os.PathLike[str], partition: str) -> Run:
    """The file and row groups that a partition's name stands for."""
    file = file_of(path, partition)
    split = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", partition, re.DOTALL)
    if split is None or file.exists():
        return Run(partition, partition, file)
    name = split[1]
    return Run(partition, name, file_of(path, name), range(int(split[2]), int(split[3])))


def _check_counts(metadata: pq.FileMetaData) -> None:
    rows = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0:
        msg = f"a row group of {min(rows)} rows"
        raise ValueError(msg)


def _length(source: pa.OSFile) -> int:
    return int.from_bytes(source.read_at(TAIL, max(0, source.size() - TAIL))[:4], "little")


def _digest(source: pa.OSFile) -> str:
    size, length = source.size(), _length(source)
    return hashlib.sha256(source.read_at(min(length + TAIL, size), max(0, size - length - TAIL))).hexdigest()[
        :32
    ]


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
