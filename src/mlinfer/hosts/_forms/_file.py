"""Arrays and facts as bytes: a JSON header that says where each array lies, then the arrays as they are.

Not numpy's own archives: their headers may promise arrays of any size, for which memory is taken before they are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

BEGINNING = b"mlinfer\x01"
DTYPES = frozenset({"<f8", "<i8", "<u4", "<u8", "|u1"})
ALIGNED = 64


def dump(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes that `load` reads. Raises ValueError: an array of another type, or facts that JSON does not know."""
    places: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            msg = f"{name}: wanted one of {', '.join(sorted(DTYPES))}, found {array.dtype.str}"
            raise ValueError(msg)
        content = np.ascontiguousarray(array).tobytes()
        places[name] = [array.dtype.str, list(array.shape), end]
        parts += [content, b"\0" * (-len(content) % ALIGNED)]
        end += len(parts[-2]) + len(parts[-1])
    header = json.dumps({"facts": facts, "arrays": places}, allow_nan=False).encode()
    header += b" " * (-(len(header) + 16) % ALIGNED)
    return b"".join([BEGINNING, len(header).to_bytes(8, "little"), header, *parts])


def load(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts, and arrays that look at `content`. Raises ValueError, KeyError or TypeError: this is something else."""
    if content[:8] != BEGINNING:
        msg = "another beginning"
        raise ValueError(msg)
    start = 16 + int.from_bytes(content[8:16], "little")
    header = json.loads(content[16:start])
    arrays = {}
    for name, (dtype, shape, offset) in header["arrays"].items():
        if dtype not in DTYPES or offset < 0 or min(shape, default=0) < 0:
            msg = f"array {name!r}"
            raise ValueError(msg)
        count = 1
        for size in shape:
            count *= int(size)
        arrays[name] = (
            np.frombuffer(content, dtype, count, start + offset).reshape(shape)
            if count
            else np.empty(shape, dtype)
        )
    return header["facts"], arrays
