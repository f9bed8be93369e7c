"""What no client could ask for, or be told: found before the server listens, not by the first who asks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._errors import ConfigError
from mlinfer._layout import Layout


def check_sayable(layout: Layout) -> None:
    """Raise ConfigError: a column has a type that neither JSON nor a tensor can say."""
    for role, schema in (("inputs", layout.wanted), ("answers", layout.output)):
        for field in schema:
            for kind in _within(field.type):
                if (instead := _instead(kind)) is not None:
                    msg = (
                        f"serving: wanted {role} that JSON and tensors can say, found {field.name!r} of the type {field.type}; "
                        f"take {instead} in place of {kind}"
                    )
                    raise ConfigError(msg)


def _instead(kind: pa.DataType) -> Any:
    """A type that can be said and holds the same; None: this one can be said."""
    if pt.is_list_view(kind) or pt.is_large_list_view(kind):
        return pa.list_(kind.value_type)
    if pt.is_run_end_encoded(kind):
        return kind.value_type
    if pt.is_interval(kind):
        return "a duration, or an integer for each of its parts"
    return "a struct with a field for each of its kinds" if pt.is_union(kind) else None


def _within(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A type and all that it has as parts."""
    numbers = range(kind.num_fields)
    if isinstance(kind, pa.BaseExtensionType):
        return chain([kind], _within(kind.storage_type))
    parts = [kind.value_type] if pt.is_dictionary(kind) else [kind.field(number).type for number in numbers]
    return chain([kind], chain.from_iterable(map(_within, parts)))
