"""Answers as the tensors of the Open Inference Protocol, cut into those of each request.

What one request's answers cannot be as tensors is refused to that request alone: a batch holds those of others, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._arrays import elements, to_numpy, with_gaps
from mlinfer._casts import is_bytes, is_list, is_text, lengths_of
from mlinfer._choosing import chosen_rows
from mlinfer._online._tensors import DTYPES, Kind
from mlinfer._online._wire import Refused
from mlinfer._text import shown

Elements = np.ndarray | list[Any]
"""Numbers as an array of just their datatype; texts, bytes, and numbers with a null among them as a list."""


class OutputTensor:
    """One output of a batch as a tensor, to be cut into those of its requests."""

    def __init__(self, array: pa.Array | np.ndarray, kind: Kind) -> None:
        self.name, self.datatype = kind.name, kind.datatype
        self._width: int | None = None
        self._lengths: np.ndarray | None = None
        self._gaps: np.ndarray | None = None
        self._flat: Elements
        if isinstance(array, np.ndarray):
            self._width = None if array.ndim == 1 else array.shape[1]
            self._flat = array.reshape(-1)
            return
        array = _plain(array)
        if is_list(array.type):
            if pt.is_fixed_size_list(array.type) and not array.null_count:
                self._width = array.type.list_size
            else:
                self._lengths, self._ends = _lengths(array)
            array = _plain(elements(array))
        if self.datatype == "BYTES":
            self._flat = _texts(array)
        else:
            self._flat, self._gaps = _numbers(array)

    def cut(self, start: int, rows: int) -> tuple[list[int], Elements]:
        """The shape and the elements of some rows. Raises Refused: these are no tensor."""
        if self._lengths is not None:
            return self._cut_lists(self._lengths[start : start + rows], start)
        if self._width is None:
            return [rows], self._between(start, start + rows)
        return [rows, self._width], self._between(start * self._width, (start + rows) * self._width)

    def _cut_lists(self, lengths: np.ndarray, start: int) -> tuple[list[int], Elements]:
        width = int(lengths[0])
        if width < 0 or (lengths != width).any():
            what = "a list that is null" if (lengths < 0).any() else "lists of several lengths"
            msg = f"output {shown(self.name)}: wanted lists of one length, found {what}, which no tensor can hold; ask POST /predict"
            raise Refused(422, msg)
        begin = int(self._ends[start])
        return [len(lengths), width], self._between(begin, begin + len(lengths) * width)

    def _between(self, start: int, stop: int) -> Elements:
        found = self._flat[start:stop]
        if self._gaps is None or not (gaps := self._gaps[start:stop]).any():
            return found
        return [
            None if gap else one for one, gap in zip(np.asarray(found).tolist(), gaps.tolist(), strict=True)
        ]

    def in_json(self, found: Elements) -> list[Any]:
        """Elements as JSON says them, a null as null. Raises Refused: bytes that are not text."""
        if isinstance(found, np.ndarray):
            values: list[Any] = found.tolist()
            return values
        try:
            return [one.decode() if isinstance(one, bytes) else one for one in found]
        except UnicodeDecodeError as error:
            msg = f"output {shown(self.name)}: wanted text in UTF-8, found bytes that are not text; ask for it in binary (binary_data)"
            raise Refused(422, msg) from error

    def typed(self, found: Elements) -> list[Any]:
        """Elements as gRPC's typed contents hold them. Raises Refused: there is a null among them."""
        return found.tolist() if isinstance(found, np.ndarray) else self._pieces(found)

    def in_bytes(self, found: Elements) -> bytes:
        """Elements as they go over the wire in binary. Raises Refused: there is a null among them."""
        if isinstance(found, np.ndarray):  # "equiv": of another order of bytes at most
            return found.astype(DTYPES[self.datatype], casting="equiv", copy=False).tobytes()
        return b"".join([len(one).to_bytes(4, "little") + one for one in self._pieces(found)])

    def _pieces(self, found: list[Any]) -> list[bytes]:
        """Texts and bytes as bytes; one that is null is empty."""
        if self.datatype != "BYTES":
            msg = f"output {shown(self.name)}: found a null, and a tensor of {self.datatype} has no null; ask POST /predict"
            raise Refused(422, msg)
        return [one.encode() if isinstance(one, str) else one or b"" for one in found]


def _plain(array: pa.Array) -> pa.Array:
    """What is stored of extension types, and the values of dictionaries."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return chosen_rows(array.dictionary, array.indices) if pt.is_dictionary(array.type) else array


def _lengths(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """How long each list is (-1: it is null), and where its elements begin among all of them."""
    lengths = lengths_of(lists).astype(np.int64)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    if lists.null_count:
        lengths[to_numpy(lists.is_null())] = -1
    return lengths, begins


def _texts(array: pa.Array) -> list[Any]:
    """Texts and bytes as they are, all else as `POST /predict` spells it: what has parts, as JSON."""
    if is_text(array.type) or is_bytes(array.type):
        values: list[Any] = array.to_pylist()
        return values
    from mlinfer._json_text import (
        json_texts,
        quoted_texts,
    )  # pyarrow.compute, a tenth of the time a server starts in

    if pt.is_primitive(array.type) or pt.is_decimal(array.type):
        return list(quoted_texts(array).to_pylist())
    return [None if text == "null" else text for text in json_texts(array).to_pylist()]


def _numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of their own type, and which of them are null (None: none is, or NaN says so)."""
    if not array.null_count:
        return to_numpy(array), None
    values, gaps = with_gaps(array)
    values = values.copy()
    if values.dtype.kind == "f":
        values[gaps] = np.nan
        return values, None
    values[gaps] = 0  # what lies there is nobody's business
    return values, gaps
