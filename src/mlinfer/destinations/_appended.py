"""One file that grows, with its progress beside it: what the destinations of text files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from mlinfer import (
    ChangedError,
    ComponentError,
    ConfigError,
    FencedError,
    Progress,
    Scope,
    durable,
    failpoint,
)
from mlinfer.destinations._if_exists import IfExists
from mlinfer.destinations._sidecar import Sidecar, check_length, is_nobodys, sidecar_of, size_of, stored

BUFFER_BYTES = 2**20
COMPRESSED = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})


def check_uncompressed(path: str | os.PathLike[str]) -> None:
    """Raises ConfigError: readers would take the name for that of a compressed file, which these are not."""
    suffix = Path(path).suffix.lower()
    if suffix in COMPRESSED:
        msg = f"path: wanted a name for a file that is not compressed, found {os.fspath(path)!r}; leave {suffix} out, or compress it afterwards"
        raise ConfigError(msg)


class Appended:
    """An open file at whose end this run, and nobody else, writes."""

    def __init__(self, path: Path, file: durable.Raw | None, sidecar: Sidecar, *, anew: bool = False) -> None:
        self._path, self._file, self._sidecar = path, file, sidecar
        self._beside = sidecar_of(path).absolute()  # a model may change the folder that the process is in
        self._anew = anew
        self._buffer = bytearray()
        self._length = sidecar.length
        self._broken: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was written to the file yet."""
        return not self._length and not self._buffer

    def append(self, text: bytes | memoryview) -> None:
        """Put this behind all that was written; durable after the next commit. Raises ComponentError."""
        with self._reported():
            self._buffer += text
        if len(self._buffer) >= BUFFER_BYTES and not self._anew:
            self._write()

    def commit(self, progress: Progress) -> None:
        """Store text and progress in one step: the sidecar decides how much of the file counts. Raises ComponentError."""
        failpoint("dest.begin")
        if self._anew:
            self._begin_anew()
        self._write()
        merged = replace(self._sidecar.progress.merged(progress), epoch=self._sidecar.progress.epoch)
        newer = replace(self._sidecar, length=self._length, progress=merged)
        with self._reported():
            failpoint("dest.write.partial")
            durable.flush(self._open)
            durable.replace(self._beside, newer.to_bytes())
        self._sidecar = newer

    def committed(self) -> Progress:
        """All progress so far."""
        return self._sidecar.progress

    @property
    def _open(self) -> durable.Raw:
        assert self._file is not None, "opened read-only: nothing is written"  # noqa: S101 - the engine's duty
        return self._file

    def _begin_anew(self) -> None:
        """What was there goes now that the new comes; first from the sidecar, so that a crash before the cut does no harm."""
        with self._reported():
            durable.replace(self._beside, self._sidecar.to_bytes())
            failpoint("dest.anew")
            durable.cut(self._open, self._sidecar.length)
        self._anew = False

    def _write(self) -> None:
        rest = memoryview(self._buffer)
        with self._reported():
            while rest:
                written = self._open.write(rest)
                rest = rest[written:]
                self._length += written
        self._buffer = bytearray()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Tell the first failure, and tell it again whatever is tried after it: the file may hold half a record."""
        if self._broken is not None:
            raise ComponentError(self._broken)
        try:
            with durable.naming(self._path):
                yield
        except ComponentError as error:
            self._broken = str(error)
            raise


@contextmanager
def open_appended(
    path: Path,
    schema: pa.Schema,
    scope: Scope,
    if_exists: IfExists,
    *,
    look: Callable[[Path], None] | None = None,
) -> Iterator[Appended]:
    """Take the file for one run, everything behind the last commit cut off; read-only, what was committed can be asked.

    `look` is shown a file of others before anything is appended to it, and raises ConfigError if that cannot be.

    Raises ConfigError: another pipeline or another schema wrote what is there. FencedError: another run holds the file.
    ChangedError: the file is shorter than what was committed, or its progress is damaged or gone.
    """
    if path.exists() and not path.is_file():
        msg = f"{path}: wanted the name of a file, found something else; name a file"
        raise ConfigError(msg)
    if scope.read_only:
        durable.expect_writable(path.parent)
        durable.expect_writable(path)
        found = _begin(path, schema, scope, if_exists, look=look)
        # who writes has locked the file: there is no writing beside it
        nobody = replace(found.progress, epoch=0)
        yield Appended(path, None, replace(found, progress=nobody))
        return
    with ExitStack() as stack:
        with durable.naming(path):
            _refuse_two_outputs(path, scope)
            durable.make_folder(path.parent)
            note = stack.enter_context(_locked(path, scope))
            durable.remove_leftovers(path.parent, sidecar_of(path).name)
            sidecar = _begin(path, schema, scope, if_exists, look=look)
            before = _before_anew(path, scope, sidecar)
            # first: from now on the rest of the file does not count, so that a crash before the cut does no harm
            durable.replace(sidecar_of(path), (before or sidecar).to_bytes())
            note()
            file = stack.enter_context(durable.growing(path, (before or sidecar).length))
        appended = Appended(path, file, sidecar, anew=before is not None)
        if sidecar.foreign and sidecar.length == sidecar.foreign and not _ends_a_line(file, sidecar.foreign):
            appended.append(b"\n")
        yield appended


def _begin(
    path: Path, schema: pa.Schema, scope: Scope, if_exists: IfExists, *, look: Callable[[Path], None] | None
) -> Sidecar:
    """What the sidecar says when this run begins to write."""
    columns = tuple((field.name, str(field.type)) for field in schema)
    found = stored(path)
    if found is None or not found.is_of(scope):
        kept = _keep_foreign(path, found, if_exists)
        if kept and look is not None:
            look(path)
        _check_epoch(path, scope, 0)
        return Sidecar(scope.pipeline, scope.output, columns, kept, kept, Progress(epoch=1))
    _check_epoch(path, scope, found.progress.epoch)
    epoch = scope.epoch or found.progress.epoch + 1
    if scope.fresh:
        return Sidecar(
            scope.pipeline, scope.output, columns, found.foreign, found.foreign, Progress(epoch=epoch)
        )
    if found.columns != columns:
        msg = (
            f"{path}: wanted the columns {_listed(columns)}, found {_listed(found.columns)} from earlier runs; "
            "write to another file, or start over with from_start=True"
        )
        raise ConfigError(msg)
    check_length(path, found)
    return replace(found, progress=replace(found.progress, epoch=epoch))


def _before_anew(path: Path, scope: Scope, sidecar: Sidecar) -> Sidecar | None:
    """What stays until the first commit of a run that begins anew; None if there is nothing to replace."""
    found = stored(path) if scope.fresh else None
    if found is None or not found.is_of(scope):
        return None
    if size_of(path) < found.length:
        return None  # it is damaged: nothing worth keeping
    return replace(found, progress=replace(found.progress, epoch=sidecar.progress.epoch))


def _keep_foreign(path: Path, found: Sidecar | None, if_exists: IfExists) -> int:
    size = size_of(path)
    nobodys = found is not None and is_nobodys(path, found)
    if found is not None:  # what is behind it was never committed
        size = min(size, found.foreign if nobodys else found.length)
    if not size or if_exists == "replace":
        return 0
    if found is None and durable.noted(path):
        msg = (
            f"{path}: wanted its progress in {sidecar_of(path).name}, found none, though mlinfer has written here: its records would be "
            'delivered again beside those; restore it from a backup, write everything anew with if_exists="replace", or remove '
            f".{path.name}.lock, too, if the file is no longer a pipeline's"
        )
        raise ChangedError(msg)
    if if_exists == "append" and (found is None or nobodys):
        return size
    # The sidecar holds the progress of one pipeline: if two took turns, each would forget what it has delivered.
    theirs = None if nobodys else found
    whose = f"pipeline {theirs.pipeline!r} ({theirs.output})" if theirs else "something else"
    choices = "'replace'" if theirs else "'append' or 'replace'"
    msg = (
        f"{path}: wanted a file of this pipeline or none, found one that {whose} wrote; "
        f"choose another file, or if_exists={choices}"
    )
    raise ConfigError(msg)


@contextmanager
def _locked(path: Path, scope: Scope) -> Iterator[Callable[[], None]]:
    try:
        with durable.locked(path, "output", scope.run) as note:
            yield note
    except FencedError:
        _refuse_two_outputs(path, scope, held=True)
        raise


def _refuse_two_outputs(path: Path, scope: Scope, *, held: bool = False) -> None:
    """Two outputs of one run are two files. One that nobody holds, and that holds nothing, may become another's."""
    found = stored(path)
    if found is None or (not held and is_nobodys(path, found)):
        return
    if found.pipeline == scope.pipeline and found.output != scope.output:
        msg = f"{path}: wanted a file for {scope.output!r}, found that {found.output!r} of this pipeline goes there; name two files"
        raise ConfigError(msg)


def _check_epoch(path: Path, scope: Scope, stored: int) -> None:
    if scope.epoch is not None and scope.epoch != stored:
        msg = f"{path}: another run of pipeline {scope.pipeline!r} has taken over (run {stored}, this is {scope.epoch}); this one must stop"
        raise FencedError(msg)


def _ends_a_line(file: durable.Raw, size: int) -> bool:
    return os.pread(file.fileno(), 1, size - 1) == b"\n"


def _listed(columns: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns)
