"""The short way through a step, for numbers about which there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._answers import Usable
from mlinfer._arrays import as_column, finite_in_all
from mlinfer._protocols import InfersArrays, SideTables, Stateful

if TYPE_CHECKING:
    from mlinfer._layout import Layout
    from mlinfer._protocols import Model

_DOUBLE = np.dtype(np.float64)


class AtOnce:
    """Asks a model with arrays of float64 and takes its answers, if every number in both is finite.

    What comes of it is what the whole step would give: whatever is not plainly right is left to that. For a single record
    the whole step costs more than a small model.
    """

    def __init__(self, model: InfersArrays, layout: Layout) -> None:
        self._model = model
        self._names = layout.wanted.names
        self._widths = [_width(kind) for kind in layout.wanted.types]
        self._output, self._usable = layout.output, Usable(layout.output)
        self._fields = list(layout.output)
        self._types = layout.output.types

    def __call__(self, columns: Mapping[str, np.ndarray], rows: int) -> pa.RecordBatch | None:
        """The answers to so many records, one array for each column; None: ask in the usual way."""
        if not rows or list(columns) != self._names:
            return None
        for width, values in zip(self._widths, columns.values(), strict=True):
            if (
                values.dtype != _DOUBLE
                or values.shape != (rows, *width)
                or not finite_in_all(values.reshape(-1))
            ):
                return None
        try:
            found = self._model.infer_arrays({name: _read_only(values) for name, values in columns.items()})
            arrays = [as_column(found[field.name], field) for field in self._fields]
        except (Exception, SystemExit):  # noqa: BLE001 - the usual way asks again, and says what is wrong
            return None
        if [array.type for array in arrays] != self._types or any(len(array) != rows for array in arrays):
            return None
        if self._usable(arrays) is not None:
            return None
        return pa.RecordBatch.from_arrays(arrays, schema=self._output)


def at_once(model: Model, layout: Layout) -> AtOnce | None:
    """The short way; None: there is none for this model and these columns."""
    if not isinstance(model, InfersArrays) or isinstance(model, Stateful | SideTables):
        return None
    if len(layout.keep) or len(layout.lineage) or layout.columns or not layout.wanted.names:
        return None
    kinds = layout.wanted.types
    plain = all(
        kind == pa.float64() or (pt.is_fixed_size_list(kind) and kind.value_type == pa.float64())
        for kind in kinds
    )
    return AtOnce(model, layout) if plain else None


def _width(kind: pa.DataType) -> tuple[int, ...]:
    """The shape of one value."""
    return (kind.list_size,) if pt.is_fixed_size_list(kind) else ()


def _read_only(values: np.ndarray) -> np.ndarray:
    if not values.flags.writeable:
        return values
    view = values.view()
    view.flags.writeable = False
    return view
