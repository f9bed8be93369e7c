"""Closes a part without letting what fails then hide what failed before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from mlinfer._errors import ComponentError, MlinferError
from mlinfer._text import in_words

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

T = TypeVar("T")


class Closing(Generic[T]):
    """A part that is opened by `opening`; the first error is the one that is told, a failure to close is a note to it.

    Raises ComponentError: nothing else was wrong, and the part could not be closed.
    """

    def __init__(self, opening: AbstractContextManager[T], role: str, part: object) -> None:
        self._opening = opening
        self._name = f"{role} {type(part).__name__}"
        if not hasattr(type(opening), "__enter__"):
            msg = f"{self._name}: wanted open() to give a context manager (write @contextmanager above it, and yield), found {type(opening).__name__}"
            raise ComponentError(msg)

    def __enter__(self) -> T:
        return self._opening.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, first: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._opening.__exit__(kind, first, trace)
        except Exception as error:  # told as that part's, or noted on what came first
            if first is None:
                if isinstance(error, MlinferError):
                    raise
                raise ComponentError(self._complaint(error)) from error
            if error is first or (error.__cause__ is first and not isinstance(first, MlinferError)):
                raise  # the part says the same in words of its own
            first.add_note(f"{self._name} could not be closed either: {in_words(error)}")

    def _complaint(self, error: Exception) -> str:
        return (
            f"{self._name}: wanted it to be closed, found {in_words(error)}; "
            "what was committed is safe, the next run goes on from there"
        )
