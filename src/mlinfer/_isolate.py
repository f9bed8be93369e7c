"""Finds the records for which a call fails: the batch is halved until the guilty ones stand alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from mlinfer._errors import ComponentError, MlinferError, RecordErrors

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

A = TypeVar("A")
MOST_CALLS = 4096
KINDS: dict[type[Exception], str] = {
    TimeoutError: "timeout",
    ChildProcessError: "model_died",
    MemoryError: "out_of_memory",
}


@dataclass
class Isolated(Generic[A]):
    """What came back, in order: stretches of records with their answer, and the bad records."""

    answers: list[tuple[list[int] | range, A]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    calls: int = 0

    def refuse(self, row: int, kind: str, message: str) -> None:
        """Note a bad record."""
        self.rows.append(row)
        self.kinds.append(kind)
        self.messages.append(message)


def isolate(
    call: Callable[[pa.RecordBatch], A], records: pa.RecordBatch, *, before_retry: Callable[[], None]
) -> Isolated[A]:
    """Call with all records, and after a failure with halves of them: one bad record of 65,536 costs 33 calls.

    RecordErrors from the call names the bad records, and the others are called again at once. Errors of mlinfer's own
    (a broken contract, a transient failure) are not about records and pass through. `before_retry` runs before every
    call but the first. Raises ComponentError when MOST_CALLS are not enough.
    """
    found: Isolated[A] = Isolated()
    work: list[range | list[int]] = [range(records.num_rows)]
    while work:
        rows = work.pop()
        if not rows:
            continue
        if found.calls:
            before_retry()
        found.calls += 1
        try:
            found.answers.append((rows, call(_part(records, rows))))
        except RecordErrors as errors:
            bad = set(errors.rows)
            for row, kind, message in zip(errors.rows, errors.kinds, errors.messages, strict=True):
                found.refuse(rows[row], kind, message)
            rest = [row for place, row in enumerate(rows) if place not in bad]
            if len(rest) == len(rows):
                msg = (
                    "the model raised RecordErrors without naming a record; name one, or raise another error"
                )
                raise ComponentError(msg) from errors
            work.append(rest)
        except MlinferError:
            raise
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and one record must not cost the others
            _halve(found, work, rows, error)
    found.answers.sort(key=lambda answer: answer[0][0])
    return found


def _halve(
    found: Isolated[A], work: list[range | list[int]], rows: range | list[int], error: Exception
) -> None:
    if len(rows) == 1:
        kind = next(
            (kind for error_type, kind in KINDS.items() if isinstance(error, error_type)), "model_error"
        )
        found.refuse(rows[0], kind, f"{type(error).__name__}: {error}")
        return
    if found.calls >= MOST_CALLS:
        msg = (
            f"the model failed for so many records of one batch that {found.calls} calls did not find them all "
            f"({len(found.rows)} found); last error: {type(error).__name__}: {error}; "
            "let the model raise RecordErrors, or check its input"
        )
        raise ComponentError(msg) from error
    middle = len(rows) // 2
    work += [rows[middle:], rows[:middle]]  # the front half is on top: answers come in order


def _part(records: pa.RecordBatch, rows: range | list[int]) -> pa.RecordBatch:
    if isinstance(rows, range):
        return records.slice(rows.start, len(rows))
    import pyarrow as pa

    return records.take(pa.array(rows, pa.int64()))
