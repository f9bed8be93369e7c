"""A field of the records, before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mlinfer import is_text


class NotCompiled(Exception):  # noqa: N818 - not an error: the estimator is asked as it is
    """Why an estimator has no compiled form."""


@dataclass(frozen=True)
class Source:
    """A field as it is; `fill` is what stands in for a missing one."""

    place: int
    name: str
    type: pa.DataType
    fill: Any = None

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        return is_text(self.type)

    def filled(self, value: Any) -> Source:
        """The same with this in place of a missing one; the first to fill it counts."""
        return self if self.fill is not None else replace(self, fill=value)
