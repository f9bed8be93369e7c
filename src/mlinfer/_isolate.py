"""Finds the records for which a call fails: the batch is halved until the guilty ones stand alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from mlinfer._errors import ComponentError, MlinferError, RecordErrors
from mlinfer._text import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

A = TypeVar("A")
Rows: TypeAlias = range | list[int]
MOST_CALLS = 4096
KINDS: dict[type[Exception], str] = {
    TimeoutError: "timeout",
    ChildProcessError: "model_died",
    MemoryError: "out_of_memory",
}


class Foreign(Exception):  # noqa: N818 - what somebody else's error said
    """An exception of another process, in its own words: `ValueError: no threes`."""


@dataclass
class Isolated(Generic[A]):
    """What came back, in order: stretches of records with their answer, and the bad records."""

    answers: list[tuple[Rows, A]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    calls: int = 0
    timeouts: int = 0

    def refuse(self, row: int, kind: str, message: str) -> None:
        """Note a bad record."""
        self.rows.append(row)
        self.kinds.append(kind)
        self.messages.append(message)


def isolate(
    call: Callable[[Rows], A],
    rows: Rows,
    failure: Exception,
    look: Callable[[Isolated[A], Rows], None] | None = None,
) -> Isolated[A]:
    """After a call for all rows has failed: call for halves of them, until the guilty rows stand alone.

    One bad record of 65,536 costs 33 calls, the failed one included. RecordErrors name the bad rows (counted within the
    call), and the others are called for again at once. Errors of mlinfer's own (a broken contract, a transient failure)
    are not about records and are raised. `look` sees what was found after each failure, and may raise to end the search.
    Raises ComponentError when MOST_CALLS are not enough.
    """
    found: Isolated[A] = Isolated(calls=1)
    work: list[Rows] = []

    def fail(part: Rows, error: Exception) -> None:
        _divide(found, work, part, error)
        if look is not None:
            look(found, part)

    fail(rows, failure)
    while work:
        part = work.pop()
        found.calls += 1
        try:
            found.answers.append((part, call(part)))
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and one record must not cost the others
            fail(part, error)
    found.answers.sort(key=lambda answer: answer[0][0])
    return found


def _divide(found: Isolated[A], work: list[Rows], rows: Rows, error: Exception) -> None:
    """Put what is still to be called for on top of the work, the front first: answers come in order."""
    found.timeouts += isinstance(error, TimeoutError)
    if isinstance(error, RecordErrors):
        rest = _without_named(found, rows, error)
        work += [rest] if rest else []
    elif isinstance(error, MlinferError):
        raise error
    elif len(rows) == 1 and found.calls == 1 and isinstance(error, ChildProcessError):
        # a process may die for reasons of its own, and a larger batch is asked again in any case
        work.append(rows)
    elif len(rows) == 1:
        kind = next(
            (kind for error_type, kind in KINDS.items() if isinstance(error, error_type)), "model_error"
        )
        found.refuse(rows[0], kind, _words(error))
    elif found.calls >= MOST_CALLS:
        msg = (
            f"the model failed for so many records of one batch that {found.calls} calls did not find them all "
            f"({len(found.rows)} found); last error: {_words(error)}; "
            "let fewer records share a batch, batching=Batching(1000), or the model name its bad records: RecordErrors"
        )
        raise ComponentError(msg) from error
    else:
        middle = len(rows) // 2
        work += [rows[middle:], rows[:middle]]


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, Foreign) else in_words(error)


def _without_named(found: Isolated[A], rows: Rows, errors: RecordErrors) -> list[int]:
    bad = set(errors.rows)
    if not bad or len(bad) != len(errors.rows) or not bad.issubset(range(len(rows))):
        msg = f"the model raised RecordErrors for rows {errors.rows[:5]} of {len(rows)}; name rows of the batch it was given, each once"
        raise ComponentError(msg) from errors
    for row, kind, message in zip(errors.rows, errors.kinds, errors.messages, strict=True):
        found.refuse(rows[row], kind, message)
    return [row for place, row in enumerate(rows) if place not in bad]
