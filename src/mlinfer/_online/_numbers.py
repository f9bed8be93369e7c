"""Lists of numbers in requests, read by mlinfer-fast where it is installed: into numpy's memory, without an object for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np


class Lifted(NamedTuple):
    """What is left of a JSON text (empty lists where there were numbers), the numbers, and the length of each of the lists.

    `length` is -1 where the lists differ.
    """

    text: bytes
    numbers: np.ndarray
    lists: int
    length: int


def lift(text: bytes, name: bytes) -> Lifted | None:
    """Take the lists of numbers out that are values of the key `name`, as JSON spells it.

    None: one of them holds something else, or a number that a float64 cannot hold; or mlinfer-fast is not installed.
    """
    library = _library()
    found = None if library is None else library(text, name)
    if found is None:
        return None
    left, numbers, lists, length = found
    return Lifted(left, np.frombuffer(numbers), lists, length)


@cache
def _library() -> Callable[[bytes, bytes], tuple[bytes, bytes, int, int] | None] | None:
    try:
        from mlinfer_fast import lift
    except ImportError:  # not installed, or an older one, which walks trees only
        return None
    return lift
