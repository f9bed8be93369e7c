"""The header row of a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

from mlinfer import SchemaError
from mlinfer.sources._csv_cells import UNNAMED
from mlinfer.sources._csv_records import Splitter
from mlinfer.sources._text_files import LONGEST_LINE, Tape

MOST_COLUMNS = 4096
HEADER = "header row"
PARQUET = b"PAR1"
PACKED = {b"\x1f\x8b": ".csv.gz", b"\x28\xb5\x2f\xfd": ".csv.zst"}
OTHER_DELIMITERS = ",;\t|"


def header_of(tape: Tape, delimiter: str, *, growing: bool) -> list[str] | None:
    """The names of the columns; None: the file is empty, or its first line is being written just now."""
    splitter = Splitter(delimiter)
    while True:
        final = tape.ended and not growing
        ends = splitter.ends(tape.data, tape.start, final=final) if tape.start < len(tape.data) else None
        if ends is not None and len(ends.places):
            size = int(ends.places[0]) - tape.start
            line = tape.take(size, tape.data.count(b"\n", tape.start, tape.start + size))
            if line.strip(b"\r\n"):
                _refuse_others(line, tape.path)
                _refuse_returns(line, tape.path)
                return _names(line, tape.path, delimiter)
        elif len(tape.data) - tape.start > LONGEST_LINE:
            raise SchemaError(
                HEADER, f"at most {LONGEST_LINE} bytes", "more", f"{tape.path} may not be a CSV file"
            )
        elif not tape.fill() and (growing or tape.start >= len(tape.data)):
            return None


def _refuse_others(line: bytes, path: Path) -> None:
    if line.startswith(PARQUET) and line[len(PARQUET) :][:1] < b" ":
        advice = f"read {path} with ParquetSource, or give it a name that ends in .parquet"
        raise SchemaError(HEADER, "names of columns in UTF-8", "a Parquet file", advice)
    for start, suffix in PACKED.items():
        if line.startswith(start):
            advice = f"give {path} a name that ends in {suffix}"
            raise SchemaError(HEADER, "names of columns in UTF-8", "a compressed file", advice)


def _refuse_returns(line: bytes, path: Path) -> None:
    if b"\r" in line.rstrip(b"\r\n") and b'"' not in line:
        found = "lines that end in a carriage return alone"
        advice = f"write {path} with newlines (tr '\\r' '\\n')"
        raise SchemaError(HEADER, "lines that end in a newline", found, advice)


def _names(line: bytes, path: Path, delimiter: str) -> list[str]:
    try:
        (names,) = csv.reader([line.decode()], delimiter=delimiter, strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise SchemaError(
            HEADER, "names of columns in UTF-8", f"{line[:80]!r}", f"correct the first row of {path}"
        ) from error
    if len(names) > MOST_COLUMNS:
        raise SchemaError(
            HEADER, f"at most {MOST_COLUMNS} columns", len(names), f"cut {path} into several files"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise SchemaError(
            twice[0], "one column of that name", names.count(twice[0]), f"rename columns in {path}"
        )
    if names.count("") > 1:  # a spreadsheet's empty columns: nobody can ask for them
        names = [name or f"{UNNAMED}{place}" for place, name in enumerate(names)]
    if len(names) == 1:
        for other in OTHER_DELIMITERS:
            if other in names[0]:
                advice = f"{path} seems to need CsvSource(..., delimiter={other!r})"
                raise SchemaError(names[0], f"columns separated by {delimiter!r}", "a single column", advice)
    return names
