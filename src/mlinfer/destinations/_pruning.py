"""Old rejects removed from files: which lines and which parts go."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mlinfer import ConfigError, Scope, durable
from mlinfer.destinations._parquet_making import PartFile, physical_schema
from mlinfer.destinations._parquet_parts import (
    Part,
    in_force,
    merged,
    name_of,
    numbers,
    remove,
    survey,
    temporary_prefix,
)
from mlinfer.destinations._sidecar import shorten

WHOSE, WHEN = "pipeline", "rejected_at"


def prune_json_lines(path: Path, scope: Scope, before: datetime) -> int:
    """Remove the lines of older rejects; how many."""

    def keep(text: bytes, names: list[str]) -> tuple[bytes, int]:
        _check_columns(path, names)
        lines = text.splitlines(keepends=True)  # JSON has no bare line ends
        rows = ((row[WHOSE], row[WHEN]) for row in map(json.loads, lines))
        return _without_old(lines, rows, scope, before)

    return shorten(path, scope, keep)


def prune_csv(path: Path, scope: Scope, before: datetime) -> int:
    """Remove the records of older rejects, the header stays; how many."""

    def keep(text: bytes, names: list[str]) -> tuple[bytes, int]:
        _check_columns(path, names)
        whose, when = names.index(WHOSE), names.index(WHEN)
        records = list(_csv_records(text))
        rows = (
            (None, "") if row == names else (row[whose], row[when])
            for row in (next(csv.reader([record.decode()])) for record in records)
        )
        return _without_old(records, rows, scope, before)

    return shorten(path, scope, keep)


def prune_parts(folder: Path, scope: Scope, before: datetime, compression: str) -> int:
    """Remove the parts in which every reject is older; how many rejects these were.

    The oldest go first, so that a crash leaves the newest. One part stays, for it says which run was the latest: an empty
    one takes its place. Positions in the others are missed by nobody, for no run goes on from those of its rejects.
    """
    ours, _ = survey(folder, (scope.pipeline, scope.output))
    current, replaced = in_force(ours, scope)
    rows = {part.path: _rows_if_old(part, before) for part in current}
    old = [part for part in current if rows[part.path] is not None]
    if not any(rows[part.path] for part in old):
        return 0
    with durable.naming(folder):
        if old[-1] is current[-1]:
            if rows[old[-1].path]:
                _publish_empty(folder, current, compression)
            else:
                old.pop()
        remove(part.path for part in [*replaced, *old])
    return sum(rows[part.path] or 0 for part in old)


def _check_columns(where: Path, names: Sequence[str]) -> None:
    if WHOSE not in names or WHEN not in names:
        msg = f"{where}: wanted rejects, with the columns {WHOSE} and {WHEN}, found {', '.join(names)}; is this their place?"
        raise ConfigError(msg)


def _without_old(
    lines: list[bytes], rows: Iterable[tuple[str | None, str]], scope: Scope, before: datetime
) -> tuple[bytes, int]:
    kept = [
        line
        for line, (whose, when) in zip(lines, rows, strict=True)
        if whose != scope.pipeline or datetime.fromisoformat(when) >= before
    ]
    return b"".join(kept), len(lines) - len(kept)


def _csv_records(text: bytes) -> Iterator[bytes]:
    """The records with their line ends; a line end between quotes ends nothing."""
    begun = b""
    for line in text.split(b"\n"):
        begun += line + b"\n"
        if begun.count(b'"') % 2 == 0:
            if begun != b"\n":  # behind the last line end there is nothing
                yield begun
            begun = b""


def _rows_if_old(part: Part, before: datetime) -> int | None:
    """How many rejects a part holds; None if one of them must stay."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    _check_columns(part.path, part.mark.schema.names)
    with pq.ParquetFile(part.path) as file:
        times = file.read(columns=[WHEN]).column(WHEN)
    latest = pc.max(times).as_py()
    return len(times) if latest is None or latest < before else None


def _publish_empty(folder: Path, current: list[Part], compression: str) -> None:
    mark = current[-1].mark
    scratch = durable.temporary(folder / f"{temporary_prefix(mark.owner)}{mark.run}")
    part = PartFile(scratch, mark.schema, physical_schema(mark.schema, None), compression)
    part.finish(replace(mark, progress=replace(merged(current), epoch=mark.epoch)))
    durable.publish(part.path, folder / name_of(max(numbers(folder).values()) + 1))
