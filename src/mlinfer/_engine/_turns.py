"""Lets lanes use one thing, one after the other, until it has failed in one of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Turns:
    """A lock that remembers what failed under it, and raises that again to whoever comes later.

    What is behind it is then in no known state: records may be lost, or written without their position. A lane that did
    not notice would commit, and so pass what is lost or store what will be delivered again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._lock.acquire()
        if self._failure is not None:
            self._lock.release()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failure = error  # whatever it was, it ends the session
        self._lock.release()
