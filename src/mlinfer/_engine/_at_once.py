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


class AtOnce:
    """Asks a model with arrays of float64 and takes its answers, if every number in both is finite.

    What comes of it is what the whole step would give: whatever is not plainly right is left to that. For a single record
    the whole step costs more than a small model.
    """

    def __init__(self, model: InfersArrays, layout: Layout) -> None:
        self._model = model
        self._sizes = [
            (name, _size(kind)) for name, kind in zip(layout.wanted.names, layout.wanted.types, strict=True)
        ]
        self._output, self._usable = layout.output, Usable(layout.output)
        self._fields = list(layout.output)

    def __call__(self, columns: Mapping[str, np.ndarray], rows: int) -> pa.RecordBatch | None:
        """The answers to so many records, one array for each column; None: ask in the usual way."""
        if not rows or list(columns) != [name for name, _ in self._sizes]:
            return None
        for (_, size), values in zip(self._sizes, columns.values(), strict=True):
            shape = (rows,) if size is None else (rows, size)
            if values.dtype != np.float64 or values.shape != shape or not finite_in_all(values.reshape(-1)):
                return None
        try:
            found = self._model.infer_arrays({name: _read_only(values) for name, values in columns.items()})
            arrays = [as_column(found[field.name], field) for field in self._fields]
        except (Exception, SystemExit):  # noqa: BLE001 - the usual way asks again, and says what is wrong
            return None
        for array, field in zip(arrays, self._fields, strict=True):
            if len(array) != rows or array.type != field.type:
                return None
        answers = pa.RecordBatch.from_arrays(arrays, schema=self._output)
        return answers if self._usable(answers) is None else None


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


def _size(kind: pa.DataType) -> int | None:
    return kind.list_size if pt.is_fixed_size_list(kind) else None


def _read_only(values: np.ndarray) -> np.ndarray:
    view = values.view()
    view.flags.writeable = False
    return view
