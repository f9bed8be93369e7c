"""The bytes of a skops file without what differs from one process to the next: addresses, random names, the time."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

SCHEMA = "schema.json"
BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can name."""

NPY = b"\x93NUMPY"


def same_everywhere(content: bytes) -> bytes:
    """A skops file that loads as `content` does, and that is the same, byte for byte, for equal estimators.

    skops calls objects and files by their addresses; arrays of records come with the memory between their fields, and
    sets of strings in the order of this process.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(SCHEMA))
        numbers = _Numbers()
        plain = numbers.of(schema)
        files = {new: _array(archive.read(old)) for old, new in numbers.files.items()}
    return _archive({**files, SCHEMA: json.dumps(plain, indent=2).encode()})


class _Numbers:
    """Numbers for addresses and files, in the order in which they are met."""

    def __init__(self) -> None:
        self._ids: dict[int, int] = {}
        self.files: dict[str, str] = {}

    def of(self, value: Any) -> Any:
        """The value with numbers for addresses."""
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("__loader__") == "SetNode":
            value = {**value, "content": sorted(value["content"], key=_without_ids)}
        return {name: self._entry(name, item, value) for name, item in value.items()}

    def _entry(self, name: str, item: Any, owner: dict[str, Any]) -> Any:
        if name == "__id__":
            return self._ids.setdefault(item, len(self._ids) + 1)
        if name == "file" and "__loader__" in owner and isinstance(item, str):
            suffix = item.rpartition(".")[2]
            return self.files.setdefault(item, f"{len(self.files)}.{suffix}")
        # the address of a list that a vectorizer has checked; it checks it once more
        if name == "_stop_words_id":
            return {
                **item,
                "content": "0",
                "__id__": self._ids.setdefault(item["__id__"], len(self._ids) + 1),
            }
        return self.of(item)


def _without_ids(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: item for name, item in value.items() if name != "__id__"}
    return json.dumps(value, sort_keys=True)


def _array(content: bytes) -> bytes:
    """A file of an array; sparse matrices are archives of such files."""
    if content.startswith(NPY):
        found = np.load(io.BytesIO(content), allow_pickle=False)
        if found.dtype.names is None:
            return content
        clean = np.zeros(found.shape, found.dtype)
        for name in found.dtype.names:
            clean[name] = found[name]
        sink = io.BytesIO()
        np.save(sink, clean, allow_pickle=False)
        return sink.getvalue()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _archive({name: _array(archive.read(name)) for name in archive.namelist()})
    return content


def _archive(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, BEGINNING), content)
    return sink.getvalue()
