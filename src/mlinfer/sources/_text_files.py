"""What the readers of text files share: opening, expanding within bounds, and knowing where they are."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from mlinfer import ChangedError, ComponentError, Position, failpoint

CHUNK_BYTES = 2**20
LONGEST_LINE = 16 * 2**20
LONGEST_RAW = 65_536
MOST_EXPANSION = 100
EXPANSION_FLOOR = 16 * 2**20
PROOF_BYTES = 4096
STEP_BYTES = 2**16
DAMAGES = (EOFError, zlib.error, OSError, pa.ArrowException)
BOM = b"\xef\xbb\xbf"
COMPRESSED = (".gz", ".zst")


def text_suffixes(*plain: str) -> tuple[str, ...]:
    """The endings of file names, compressed ones too."""
    return tuple(kind + packed for kind in plain for packed in ("", *COMPRESSED))


def may_grow(path: Path, *, follow: bool) -> bool:
    """Whether somebody may be writing the last line just now: then its newline tells that it is complete."""
    return follow and not path.name.lower().endswith(COMPRESSED)


class _Bytes(Protocol):
    def read(self, size: int) -> bytes: ...


class Tape:
    """The text of one file from a position on: what was read and not yet taken is `data[start:]`.

    Offsets count expanded bytes, so that a position means the same in a compressed file.
    """

    def __init__(self, path: Path, packed: IO[bytes], text: _Bytes) -> None:
        self.path, self._packed, self._text = path, packed, text
        self.data, self.start, self.ended = b"", 0, False
        self.offset = self.line = 0
        self._expanded = 0
        self._head = self._tail = b""

    def fill(self) -> bool:
        """Read some more behind what is there; False at the end of the file.

        Raises ComponentError: the file is damaged, expands beyond all bounds, or cannot be read.
        """
        if self.ended:
            return False
        chunk = self._read(CHUNK_BYTES)
        self.data = self.data[self.start :] + chunk if self.start < len(self.data) else chunk
        self.start = 0
        if not self._expanded and self.data.startswith(BOM):
            self.start = len(BOM)
            self._note(BOM)
        self._expanded += len(chunk)
        self.ended = not chunk
        return not self.ended

    def take(self, size: int, lines: int) -> bytes:
        """The next bytes, which hold so many lines; they count as read from now on."""
        failpoint("source.decode")
        taken = self.data[self.start : self.start + size]
        self.start += size
        self.line += lines
        self._note(taken)
        return taken

    def fill_to(self, size: int) -> None:
        """Have so much at hand, or all that there is."""
        while len(self.data) - self.start < size and self.fill():
            pass

    def skip_line(self, most: int) -> bytes:
        """Pass over everything up to the next newline in little memory; the beginning of it."""
        beginning = self.data[self.start : self.start + most]
        while (end := self.data.find(b"\n", self.start)) < 0:
            self.take(len(self.data) - self.start, 0)
            if not self.fill():
                end = self.start - 1
                break
        self.take(end + 1 - self.start, 1)
        return beginning

    def position(self) -> Position:
        """Where the file goes on, with a proof of what was in front of it."""
        return {"offset": self.offset, "line": self.line, "proof": _proof(self._head, self._tail)}

    def go_to(self, position: dict[str, Any]) -> None:
        """Continue at a stored position. Raises ChangedError: the file is not the one that was read then."""
        offset = position["offset"]
        if self._text is self._packed:
            self._jump(offset)
        else:
            self._wind(offset)
        self.line = position["line"]
        if self.offset != offset or _proof(self._head, self._tail) != position["proof"]:
            what = "replaced or changed" if self.offset == offset else f"cut to {self.offset} bytes"
            msg = (
                f"{self.path}: wanted to go on at byte {offset} (line {self.line + 1}), found that the file was {what}; "
                "give a new file a new name, or start over with from_start=True"
            )
            raise ChangedError(msg)
        self._check_last_line()

    def _jump(self, offset: int) -> None:
        self._head = self._packed.read(min(PROOF_BYTES, offset))
        self._packed.seek(max(0, offset - PROOF_BYTES))
        self._tail = self._packed.read(min(PROOF_BYTES, offset))
        self.offset = self._packed.tell() if offset else 0
        self._expanded = self.offset

    def _wind(self, offset: int) -> None:
        while self.offset < offset and (self.start < len(self.data) or self.fill()):
            self.take(min(offset - self.offset, len(self.data) - self.start), 0)

    def _check_last_line(self) -> None:
        """A last line without a newline counted as a record; it must not have become longer since."""
        if not self.offset or self._tail.endswith((b"\n", BOM)):
            return
        if self.start >= len(self.data):
            self.fill()
        rest = self.data[self.start : self.start + 2]
        if rest.startswith(b"\n") or rest == b"\r\n":
            self.take(rest.index(b"\n") + 1, 0)
        elif rest:
            msg = (
                f"{self.path}: line {self.line} had no newline and counted as the last record, found that it has grown "
                "since; rename files into place when they are complete, or start over with from_start=True"
            )
            raise ChangedError(msg)

    def _note(self, taken: bytes) -> None:
        if len(self._head) < PROOF_BYTES:
            self._head += taken[: PROOF_BYTES - len(self._head)]
        self._tail = (self._tail + taken)[-PROOF_BYTES:] if len(taken) < PROOF_BYTES else taken[-PROOF_BYTES:]
        self.offset += len(taken)

    def _read(self, size: int) -> bytes:
        try:
            chunk = self._text.read(size)
        except DAMAGES as error:
            msg = f"{self.path}: wanted to read on at byte {self._expanded} of the text, found a file that is cut or damaged ({error}); restore it, or remove it from the input"
            raise ComponentError(msg) from error
        expanded = self._expanded + len(chunk)
        if expanded > EXPANSION_FLOOR and expanded > MOST_EXPANSION * self._packed.tell():
            msg = (
                f"{self.path}: wanted at most {MOST_EXPANSION} bytes of text for each compressed byte, found "
                f"{expanded} bytes from {self._packed.tell()}; expand the file yourself if you trust it"
            )
            raise ComponentError(msg)
        return chunk


@contextmanager
def open_tape(path: Path, after: Position | None) -> Iterator[Tape]:
    """Open a plain, gzip or zstd file (by the end of its name) behind a position.

    Raises ComponentError: it cannot be opened. ChangedError: it is not the file of that position.
    """
    try:
        packed = path.open("rb")
    except OSError as error:
        msg = f"{path}: wanted to read the file, found {os.strerror(error.errno or 0)}"
        raise ComponentError(msg) from error
    with packed:
        tape = Tape(path, packed, _expanding(path, packed))
        if after is not None:
            tape.go_to(after)
        yield tape


def _expanding(path: Path, packed: IO[bytes]) -> _Bytes:
    if path.name.lower().endswith(".gz"):
        return _Expanding(gzip.GzipFile(fileobj=packed, mode="rb").read1)
    if path.name.lower().endswith(".zst"):
        return _Expanding(pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd").read)
    return packed


class _Expanding:
    """Expands in small steps: what is in front of a damage is handed over before the error."""

    def __init__(self, step: Callable[[int], bytes]) -> None:
        self._step = step
        self._damage: Exception | None = None

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0 and self._damage is None:
            try:
                piece = self._step(min(size, STEP_BYTES))
            except DAMAGES as error:
                self._damage = error
                break
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        if self._damage is not None and not pieces:
            raise self._damage
        return b"".join(pieces)


def _proof(head: bytes, tail: bytes) -> str:
    return hashlib.sha256(head + tail).hexdigest()[:32]
