"""The short way through a step, for numbers about which there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer._answers import Usable
from mlinfer._arrays import as_column, dtype_of, finite_in_all, own
from mlinfer._batch import Batch, RecordIds
from mlinfer._protocols import InfersArrays, SideTables, Stateful
from mlinfer._signature import allows_nonfinite

if TYPE_CHECKING:
    from mlinfer._layout import Layout
    from mlinfer._protocols import Model

_DOUBLE = np.dtype(np.float64)


@dataclass(frozen=True, slots=True)
class Columns:
    """The answers to so many records by name, in numpy where they are numbers: shape (n,), or (n, k) for lists of length k."""

    columns: Mapping[str, np.ndarray | pa.Array]
    rows: int
    schema: pa.Schema

    def __len__(self) -> int:
        return self.rows

    def batch(self) -> Batch:
        """The same with ids `#0, #1, ...`, for whoever wants them in Arrow."""
        arrays = [as_column(self.columns[field.name], field) for field in self.schema]
        records = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return Batch(records, "", None, RecordIds.ordinals("", 0, self.rows))


class AtOnce:
    """Asks a model with arrays of float64 and takes its answers, if every number in both is finite.

    What comes of it is what the whole step would give: whatever is not plainly right is left to that. For a single record
    the whole step costs more than a small model.
    """

    def __init__(self, model: InfersArrays, layout: Layout) -> None:
        self._model = model
        self._names = layout.wanted.names
        self._widths = [_width(kind) for kind in layout.wanted.types]
        self._schema = layout.output
        self._outputs = [Output(field) for field in layout.output]

    def __call__(self, columns: Mapping[str, np.ndarray], rows: int) -> Columns | None:
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
            answers = {one.name: one.of(found[one.name], rows) for one in self._outputs}
        except (Exception, SystemExit):  # noqa: BLE001 - the usual way asks again, and says what is wrong
            return None
        return Columns(answers, rows, self._schema)


class Output:
    """One column of answers."""

    def __init__(self, field: pa.Field) -> None:
        self.name, self._field = field.name, field
        self._dtype, self._width = dtype_of(field.type), _width(field.type)
        self._finite = self._dtype is not None and self._dtype.kind == "f" and not allows_nonfinite(field)
        self._usable = Usable(pa.schema([field]))

    def of(self, found: Any, rows: int) -> np.ndarray | pa.Array:
        """What a model gave. Raises ValueError, and whatever Arrow raises: it is not plainly right."""
        # to numpy None is float64
        if type(found) is np.ndarray and self._dtype is not None and found.dtype == self._dtype:
            right = found.shape == (rows, *self._width)
            if right and not (self._finite and not finite_in_all(found.reshape(-1))):
                return own(found)
        else:
            array = as_column(found, self._field)
            if array.type == self._field.type and len(array) == rows and self._usable([array]) is None:
                return array
        msg = "see the usual way"
        raise ValueError(msg)


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
