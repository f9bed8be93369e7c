"""Whole files as records: images, texts, sound."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import (
    BadRecord,
    Batch,
    ChangedError,
    ConfigError,
    DataSource,
    EndOfInput,
    Position,
    RecordIds,
    SchemaError,
)
from mlinfer.sources._listing import list_files

COLUMNS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("modified", pa.timestamp("us", "UTC"), nullable=False),
    ]
)
BATCH_BYTES = 32 * 2**20
LARGEST_FILE = 2**30
LIST_AGAIN_SECONDS = 1.0
PROOF_BYTES = 4096


@dataclass(frozen=True)
class FilesSource(DataSource):
    """Reads every file as one record: its `path` below the folder, `bytes`, `size` and time when `modified`.

    A record is called by its path. The content is read only if `bytes` is asked for. A file that is too large or cannot
    be read becomes a reject.

    Files are taken in the order of their names, and progress is the last name. So a new file must have a name that sorts
    behind those that were delivered (a date or a number in front does that): one that sorts before them is an error, not
    passed over. Delivered files may be removed, the last one together with all before it: by its size and its first 4 KiB
    the folder is known again. While a run lasts every file that comes late is noticed; between two runs one goes unnoticed
    only if more of the delivered files were removed than came.

    Args:
        path: a folder, a glob (`photos/**/*.jpg`) or one file.
        follow: look for new files again and again; then files must appear whole (written under another name first).
        max_bytes: the largest file that is read, at most 1 GiB.
    """

    path: str | os.PathLike[str]
    follow: bool = False
    max_bytes: int = 64 * 2**20
    resume = "seek"

    @property
    def bounded(self) -> bool:  # type: ignore[override]  # follows from `follow`, so it cannot be set
        """Whether the source ends by itself."""
        return not self.follow

    def schema(self) -> pa.Schema:
        """`path` (string), `bytes` (binary), `size` (int64), `modified` (timestamp in UTC)."""
        return COLUMNS

    def partitions(self) -> Sequence[str]:
        """One. Raises ConfigError: there are no files, or `max_bytes` is out of range."""
        if not 0 < self.max_bytes <= LARGEST_FILE:
            msg = f"FilesSource: wanted max_bytes from 1 to {LARGEST_FILE} (1 GiB), found {self.max_bytes}"
            raise ConfigError(msg)
        self._list()
        return ("files",)

    def file_names(self) -> Iterable[str]:
        """All files that it reads."""
        return self._list()

    def remaining(self, partition: str, after: Position | None) -> int:  # noqa: ARG002 - there is one partition
        """The number of files that sort behind the position."""
        return len(_behind(self._list(), after))

    @contextmanager
    def open(self, partition: str, after: Position | None, wanted: pa.Schema) -> Iterator[FilesReader]:
        """Go on behind the last file. Raises ChangedError: it was replaced, or files have come that sort before it."""
        for field in wanted:
            if field.name not in COLUMNS.names:
                advice = f"a file has {', '.join(COLUMNS.names)}"
                raise SchemaError(field.name, field.type, "no such column", advice)
        yield FilesReader(self, partition, after, [name for name in COLUMNS.names if name in wanted.names])

    def _list(self) -> dict[str, Path]:
        return dict(list_files(self.path, follow=self.follow))


class FilesReader:
    """Reads files in the order of their names."""

    def __init__(
        self, source: FilesSource, partition: str, after: Position | None, columns: list[str]
    ) -> None:
        self._source, self._partition, self._columns = source, partition, columns
        self._files = source._list()  # noqa: SLF001 - the recipe's own session
        self._waiting = deque(_behind(self._files, after))
        self._done = len(self._files) - len(self._waiting)
        self._names = _sum(list(self._files)[: self._done])
        self._last: str | None = after["last"] if after else None
        self._listed = time.monotonic()

    def read(self, max_records: int, timeout: float) -> Batch | None:
        """The next files, at most about 32 MiB of them. Raises ChangedError: a file has come that sorts before those read."""
        if not self._waiting:
            if self._source.bounded:
                raise EndOfInput
            self._look_again(timeout)
        rows: list[dict[str, Any]] = []
        bad: list[BadRecord] = []
        size = 0
        while self._waiting and len(rows) + len(bad) < max_records and size < BATCH_BYTES:
            name = self._last = self._waiting.popleft()
            self._done += 1
            self._names += _sum([name])
            try:
                rows.append(self._record(name))
            except _TooLargeError as error:
                bad.append(BadRecord(name, "too_large", str(error), place=len(rows) + len(bad)))
            except OSError as error:
                bad.append(
                    BadRecord(
                        name,
                        "unreadable",
                        f"wanted to read the file, found: {error.strerror}",
                        place=len(rows) + len(bad),
                    )
                )
            else:
                size += len(rows[-1].get("bytes", b""))
        return self._batch(rows, tuple(bad)) if rows or bad else None

    def _record(self, name: str) -> dict[str, Any]:
        with self._files[name].open("rb") as file:
            stat = os.fstat(file.fileno())
            record: dict[str, Any] = {
                "path": name,
                "size": stat.st_size,
                "modified": stat.st_mtime_ns // 1000,
            }
            if "bytes" in self._columns:
                record["bytes"] = (
                    file.read(self._source.max_bytes + 1) if stat.st_size <= self._source.max_bytes else None
                )
                if record["bytes"] is None or len(record["bytes"]) > self._source.max_bytes:
                    msg = f"wanted at most {self._source.max_bytes} bytes, found {stat.st_size}; raise max_bytes to read it"
                    raise _TooLargeError(msg)
                record["size"] = len(record["bytes"])
        return record

    def _batch(self, rows: list[dict[str, Any]], bad: tuple[BadRecord, ...]) -> Batch:
        names = [row["path"] for row in rows]
        schema = pa.schema([COLUMNS.field(name) for name in self._columns])
        if self._columns:
            arrays = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
            records = pa.RecordBatch.from_arrays(arrays, schema=schema)
        else:
            records = pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        position = self._position()
        return Batch(records, self._partition, position, RecordIds.of(pa.array(names, pa.string())), bad)

    def _position(self) -> Position:
        assert self._last is not None  # noqa: S101 - a batch holds a file
        proof = _proof(self._files[self._last])
        return {"last": self._last, "count": self._done, "names": _hex(self._names), "proof": proof}

    def _look_again(self, timeout: float) -> None:
        due = self._listed + LIST_AGAIN_SECONDS - time.monotonic()
        if due > 0:
            time.sleep(min(due, timeout))
        if due > timeout:
            return
        found = self._source._list()  # noqa: SLF001 - the recipe's own session
        new = [name for name in found if name not in self._files]
        if self._last is not None and new and new[0] < self._last:
            raise ChangedError(_came_late(new[0], self._last))
        gone = self._files.keys() - found.keys()
        self._done -= len(gone)
        self._names -= _sum(gone)
        self._files, self._waiting, self._listed = found, deque(new), time.monotonic()


class _TooLargeError(Exception):
    """The file is larger than the source reads."""


def _behind(files: dict[str, Path], after: Position | None) -> list[str]:
    """The names that sort behind a position. Raises ChangedError: these are not the files that were delivered."""
    names = list(files)
    if after is None:
        return names
    last, count = (after.get("last"), after.get("count")) if isinstance(after, dict) else (None, None)
    if not isinstance(last, str) or not isinstance(count, int):
        msg = f"wanted progress of a FilesSource, found {after!r}; another source has used this pipeline's name: choose another name"
        raise ChangedError(msg)
    before = [name for name in names if name <= last]
    if len(before) > count:
        raise ChangedError(_came_late(f"{len(before) - count} more file(s)", last))
    # Progress of earlier versions has neither the sum of the names nor a proof.
    if len(before) == count and after.get("names") not in {None, _hex(_sum(before))}:
        raise ChangedError(_came_late("as many as were delivered, but not the same,", last))
    if before and after.get("proof") is not None:
        _check_last(files.get(last), last, after["proof"])
    return names[len(before) :]


def _check_last(path: Path | None, last: str, proof: str) -> None:
    if path is None:
        raise ChangedError(_came_late("that it is gone, and others are there", last))
    if _proof(path) != proof:
        msg = (
            f"{path}: wanted the file that was delivered last, found that it was replaced or changed; give new files new "
            "names that sort behind it, or deliver everything anew with run(from_start=True)"
        )
        raise ChangedError(msg)


def _proof(path: Path) -> str | None:
    """What a file is known by when its name is not enough; None: it cannot be read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return hashlib.sha256(f"{size}:".encode() + file.read(PROOF_BYTES)).hexdigest()[:32]
    except OSError:
        return None


def _sum(names: Iterable[str]) -> int:
    """A digest of names in any order, to which others can be added and from which they can be taken."""
    return sum(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16]) for name in names)


def _hex(names: int) -> str:
    return f"{names % 2**128:032x}"


def _came_late(what: str, last: str) -> str:
    return (
        f"wanted new files with names that sort behind {last!r}, the last one delivered, found {what} before it; "
        "rename what is new, or deliver everything anew with run(from_start=True)"
    )
