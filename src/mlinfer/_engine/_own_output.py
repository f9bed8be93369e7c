"""A pipeline that reads what it writes would deliver its own answers again, or empty its own input."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlinfer._errors import ConfigError
from mlinfer._protocols import FillsFolder
from mlinfer._resolve import located

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlinfer._engine._job import Job

RUN = re.compile(r"\[\d+:\d+\]\Z")
"""What stands behind the name of a file of which a partition is a part."""


def refuse_own_output(job: Job, names: Callable[[], Iterable[str]]) -> None:
    """Raise ConfigError if the source lists a file that this pipeline writes; `names` lists its partitions.

    It concerns sources whose partitions are files below a `path`, and outputs there. What is not there yet is not seen: look
    again whenever the source is listed.
    """
    source: Any = job.source
    while (inner := getattr(source, "source", None)) is not None:  # what Mapped and its kin hold
        source = inner
    read = _path_of(source)
    if read is None:
        return
    root = Path(os.path.realpath(_root(read)))
    places = [found for found in _places(job) if _meet(found[0], root)]
    for name in names() if places else ():
        file = Path(os.path.realpath(root if root.is_file() else root / RUN.sub("", name)))
        for place, role, part in places:
            if file == place or (
                file.parent == place and isinstance(part, FillsFolder) and part.owns(file.name)
            ):
                msg = (
                    f"{role}: wanted a place that the source does not read, found {file}, which {str(source.path)!r} means, too: "
                    "what is written there would be read in turn; write somewhere else, or let the source read less"
                )
                raise ConfigError(msg)


def _meet(place: Path, root: Path) -> bool:
    """Whether an output may be among the files of a source: most lie elsewhere, and then no file need be looked at."""
    return place == root or root in place.parents or (root.is_file() and root.parent == place)


def _root(path: Path) -> Path:
    """The part of a path without wildcards."""
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return path


def _places(job: Job) -> Iterator[tuple[Path, str, object]]:
    side = ((f"side {name!r}", one) for name, one in job.side.items())
    outputs = [
        ("destination", job.destination),
        ("rejects", job.rejects),
        ("checkpoint", job.checkpoint),
        *side,
    ]
    for role, part in outputs:
        for one in getattr(part, "destinations", (part,)):  # what Tee holds
            if (path := _path_of(one)) is not None:
                yield Path(os.path.realpath(path)), role, one


def _path_of(part: object) -> Path | None:
    """Where a part reads or writes; None if it has no `path`, or one that it will complain about itself."""
    path = getattr(part, "path", None)
    try:
        return located(path) if isinstance(path, str | os.PathLike) else None
    except ConfigError:
        return None
