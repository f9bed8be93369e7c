"""Where the records of a CSV file end: at newlines outside of quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")


@dataclass(frozen=True, slots=True)
class Ends:
    """Just behind which bytes records end, and which of these records are well-formed."""

    places: np.ndarray
    good: np.ndarray

    @classmethod
    def all_good(cls, places: np.ndarray) -> Ends:
        """Nothing was wrong."""
        return cls(places, np.ones(len(places), bool))


class Splitter:
    """Finds records by RFC 4180: a field in quotes may hold newlines, and two quotes stand for one.

    A quote inside a field that does not begin with one is a character like any other. A record that is not well-formed
    ends at its first newline: it does not take its neighbours along.
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = ord(delimiter)
        comma = re.escape(delimiter)
        field = rf'(?:"(?:[^"]++|"")*+"|[^"{comma}\r\n][^{comma}\r\n]*+|)'
        whole = rf"{field}(?:{comma}{field})*+"
        self._record = re.compile(rf"{whole}\r?(?:\n|\Z)".encode("latin-1"))
        self._unfinished = re.compile(
            rf'(?:{field}{comma})*+(?:"(?:[^"]++|"")*+"?|[^"{comma}\r\n][^{comma}\r\n]*+|)\r?\Z'.encode(
                "latin-1"
            )
        )
        self._field = re.compile(field.encode("latin-1"))

    def ends(self, data: bytes, start: int, *, final: bool) -> Ends:
        """The records in `data[start:]`; `final`: nothing will follow, so that the last one needs no newline."""
        codes = np.frombuffer(data, np.uint8, offset=start)
        newlines = np.flatnonzero(codes == _NEWLINE)
        returns = np.flatnonzero(codes == _RETURN)
        if len(returns) and not _before_newlines(codes, returns):
            return self._one_by_one(data, start, final=final)
        quotes = np.flatnonzero(codes == _QUOTE)
        if len(quotes):
            if not self._regular(codes, quotes) or (final and len(quotes) % 2):
                return self._one_by_one(data, start, final=final)
            newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
        places = newlines + (start + 1)
        if final and start < len(data) and (not len(places) or places[-1] < len(data)):
            places = np.append(places, len(data))
        return Ends.all_good(places)

    def longest_field(self, record: bytes) -> int:
        """The bytes of the longest field of a well-formed record."""
        longest = place = 0
        while place <= len(record):
            found = self._field.match(record, place)
            end = found.end() if found else len(record)
            longest = max(longest, end - place)
            place = end + 1
        return longest

    def _regular(self, codes: np.ndarray, quotes: np.ndarray) -> bool:
        """Whether every quote opens a field, closes one, or stands beside another inside one."""
        opening, closing = quotes[::2], quotes[1::2]
        before = codes[opening[opening > 0] - 1]
        behind = codes[closing[closing < len(codes) - 1] + 1]
        outside = (self._delimiter, _NEWLINE, _QUOTE)
        return bool(np.isin(before, outside).all() and np.isin(behind, (*outside, _RETURN)).all())

    def _one_by_one(self, data: bytes, start: int, *, final: bool) -> Ends:
        places, good = [], []
        while start < len(data):
            found = self._record.match(data, start)
            if found and (final or data[found.end() - 1] == _NEWLINE):
                end = found.end()
            elif not final and self._unfinished.match(data, start):
                break
            else:
                end = data.find(b"\n", start) + 1
                if not end and not final:
                    break
                end, found = end or len(data), None
            places.append(end)
            good.append(found is not None)
            start = end
        return Ends(np.array(places, np.int64), np.array(good, bool))


def _before_newlines(codes: np.ndarray, returns: np.ndarray) -> bool:
    """Whether every carriage return stands in front of a newline (or of what was not read yet)."""
    return bool((codes[returns[returns < len(codes) - 1] + 1] == _NEWLINE).all())
