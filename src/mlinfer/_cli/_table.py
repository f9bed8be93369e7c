"""Tables for people: aligned columns that fit the terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from typing import Any

import pyarrow as pa

from mlinfer._casts import is_number
from mlinfer._text import plain

WIDEST_CELL = 60
NARROWEST = 8
GAP = "  "


def rendered(table: pa.Table, width: int | None = None) -> str:
    """A table as text, one line per row below a line of names; wide columns are cut, and the last ones left out.

    `width`: characters per line; by default those of the terminal, or as many as needed where there is none.
    """
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    columns = [[name, *map(_cell, table[name].to_pylist())] for name in table.column_names]
    widths = [min(max(map(_width, column)), WIDEST_CELL) for column in columns]
    shown = _fit(widths, width)
    lines = []
    for row in range(table.num_rows + 1):
        cells = [
            _padded(column[row], widths[n], right=is_number(table.field(n).type))
            for n, column in enumerate(columns[:shown])
        ]
        lines.append(GAP.join(cells).rstrip())
    if shown < len(columns):
        lines.append(
            f"... and {len(columns) - shown} more columns: {plain(', '.join(table.column_names[shown:]), width - 24)}"
        )
    return "\n".join(lines)


def _fit(widths: list[int], width: int) -> int:
    """Narrow the widest columns until all fit, in place; returns how many columns are shown."""
    shown = len(widths)
    while (
        shown > 1
        and shown * (NARROWEST + len(GAP)) > width + len(GAP)
        and _total(widths[:shown], NARROWEST) > width
    ):
        shown -= 1
    while _total(widths[:shown]) > width and max(widths[:shown]) > NARROWEST:
        widest = max(range(shown), key=widths.__getitem__)
        widths[widest] -= 1
    return shown


def _total(widths: list[int], at_most: int = WIDEST_CELL) -> int:
    return sum(min(one, at_most) for one in widths) + len(GAP) * (len(widths) - 1)


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and value and isinstance(value[0], float):
        return "[" + ", ".join(f"{one:.4g}" for one in value[:8]) + (", ..." if len(value) > 8 else "") + "]"  # noqa: PLR2004
    return plain(str(value), WIDEST_CELL)


def _padded(text: str, width: int, *, right: bool) -> str:
    if _width(text) > width:
        kept = text[: width - 1]
        while _width(kept) > width - 1:
            kept = kept[:-1]
        text = kept + "…"
    blank = " " * (width - _width(text))
    return blank + text if right else text + blank


def _width(text: str) -> int:
    """The columns a text takes in a terminal: East Asian characters take two."""
    return (
        len(text)
        if text.isascii()
        else sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    )
