"""A pipeline that reads what it writes would deliver its own answers again, or empty its own input."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from inspect import getattr_static
from pathlib import Path
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

from mlinfer._errors import ConfigError
from mlinfer._protocols import FillsFolder, ReadsFiles
from mlinfer._resolve import located

if TYPE_CHECKING:
    from mlinfer._engine._job import Job

RUN = re.compile(r"\[\d+:\d+\]\Z")
"""What stands behind the name of a file of which a partition is a part."""


def refuse_own_output(job: Job, names: Collection[str]) -> None:
    """Raise ConfigError if one of these partitions of the source is a file that this pipeline writes.

    It concerns sources whose partitions are files below a `path`, or that say which files they read. What is not there
    yet is not seen: look again whenever the source is listed.
    """
    source = innermost(job.source)
    read = _path_of(source)
    places = (
        {os.path.realpath(path): (role, part) for path, role, part in _outputs(job)}
        if read is not None
        else {}
    )
    if read is None or not places:
        return
    root = _root(read)
    for file in _files(root, _names_read(source, names, root, places)):
        folder, name = os.path.split(file)
        role, part = places.get(file) or places.get(folder) or ("", None)
        if file in places or (isinstance(part, FillsFolder) and part.owns(name)):
            msg = (
                f"{role}: wanted a place that the source does not read, found {file}, which {str(source.path)!r} means, too: "
                "what is written there would be read in turn; write somewhere else, or let the source read less"
            )
            raise ConfigError(msg)


def _names_read(
    source: Any, partitions: Collection[str], root: Path, places: Collection[str]
) -> Collection[str]:
    """The names of files to look at below the root: partitions, or what a source says that reads others."""
    if not isinstance(source, ReadsFiles):
        return partitions
    # listing takes time: again only where new ones could be the pipeline's own
    asked = partitions or any(_lies_in(root, Path(place)) for place in places)
    return list(source.file_names()) if asked else ()


def refuse_before_opening(job: Job, names: Callable[[], Collection[str]]) -> None:
    """The same before an output is opened, which may empty it: lists the source only where that can matter, for it takes time."""
    read = _path_of(innermost(job.source))
    if read is None:
        return
    root = _root(read)
    for path, _, part in _outputs(job):
        place = Path(os.path.realpath(path))
        # a link among the files that are read may lead to it from anywhere
        if _lies_in(root, place) or (getattr(part, "if_exists", None) == "replace" and place.exists()):
            refuse_own_output(job, names())
            return


def _lies_in(root: Path, place: Path) -> bool:
    """Whether what is written at a place may be among what is read below a root; both are where they really are."""
    return place == root or root in place.parents or (root.is_file() and root.parent == place)


def innermost(source: Any) -> Any:
    """What `Mapped` and its kin hold. What makes up attributes as it is asked for them would hold one without end."""
    while getattr_static(source, "source", None) is not None:
        inner = source.source
        if getattr_static(inner, "partitions", None) is None:
            break
        source = inner
    return source


def _root(path: Path) -> Path:
    """Where the part of a path without wildcards really is."""
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return Path(os.path.realpath(path))


def _files(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Where the files really are: of many in one folder only links are followed one by one."""
    if root.is_file():
        yield os.path.realpath(root)
        return
    folders: dict[str, str] = {}
    for name in names:
        whole = os.path.join(root, RUN.sub("", name))  # noqa: PTH118 - a Path of each costs as much as to list them
        folder, last = os.path.split(whole)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        linked = os.path.islink(whole)  # noqa: PTH114 - likewise
        yield os.path.realpath(whole) if linked else os.path.join(folders[folder], last)  # noqa: PTH118 - likewise


def _outputs(job: Job) -> Iterator[tuple[Path, str, object]]:
    """Where each output writes, if that is a path, what it is called, and the part."""
    side = ((f"side {name!r}", one) for name, one in job.side.items())
    outputs = [
        ("destination", job.destination),
        ("rejects", job.rejects),
        ("checkpoint", job.checkpoint),
        *side,
    ]
    for role, part in outputs:
        held = getattr(part, "destinations", None)  # what Tee holds
        for one in held if isinstance(held, tuple | list) else (part,):
            if (path := _path_of(one)) is not None:
                yield path, role, one


def _path_of(part: object) -> Path | None:
    """Where a part reads or writes; None if it has no `path`, computes it (maybe only while it is open), or will complain about it."""
    path = getattr_static(part, "path", None)
    if isinstance(path, MemberDescriptorType):  # a field that has a slot
        path = getattr(part, "path", None)
    try:
        return located(path) if isinstance(path, str | os.PathLike) else None
    except ConfigError:  # the part says the same when it is opened
        return None
