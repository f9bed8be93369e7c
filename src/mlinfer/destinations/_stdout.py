"""Answers on the standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from mlinfer import Batch, ComponentError, DataDestination, Progress, Scope
from mlinfer.destinations._jsonl import json_lines
from mlinfer.destinations._spellable import check_types, refuse_far_times


@dataclass(frozen=True)
class StdoutDestination(DataDestination):
    """Prints answers as JSON lines; for looking at them and for pipes.

    Nothing remembers what was printed, so a run that is repeated prints it again. When the reader of a pipe has gone
    (`| head`), the run ends with a ComponentError that says so.
    """

    @contextmanager
    def open(self, schema: pa.Schema, scope: Scope) -> Iterator[StdoutWriter]:  # noqa: ARG002 - it is nobody's own
        """Get ready to print. Raises SchemaError: a column is of a type that JSON has no text for."""
        check_types(schema, "standard output")
        yield StdoutWriter()


class StdoutWriter:
    """Prints batches."""

    def write(self, batch: Batch) -> None:
        """Print the records. Raises RecordErrors: a time is too far away. ComponentError: nobody reads them, or the disk is full."""
        refuse_far_times(batch.records)
        text = bytes(json_lines(batch.records)).decode()
        with _reported():
            sys.stdout.write(text)

    def commit(self, progress: Progress) -> None:  # noqa: ARG002 - there is nowhere to keep it
        """Hand over what was printed so far."""
        with _reported():
            sys.stdout.flush()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        msg = "standard output: wanted somebody to read the answers, found that the reader has gone; the run ends here"
        raise ComponentError(msg) from error
    except OSError as error:
        msg = f"standard output: wanted to print, found {os.strerror(error.errno or 0)}"
        raise ComponentError(msg) from error
