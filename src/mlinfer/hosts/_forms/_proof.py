"""Compares a compiled form with its estimator on thousands of records; only what is equal is used."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from mlinfer import RecordErrors, chosen_rows
from mlinfer.hosts._forms._questions import Ground, questions
from mlinfer.hosts._forms._source import NotCompiled
from mlinfer.hosts._signature_of import REFUSALS

WITHIN = 1e-12
"""How far a number may be off, relative to the largest answer of its group; 1 for probabilities. A hundredth of the digits
that float64 has beyond it is what scikit-learn itself loses when it is asked in batches of another size."""

DRAWN = 1000
ALONE = 40
"""Records that are asked one by one where scikit-learn refuses some of a batch."""


@dataclass(frozen=True)
class Proof:
    """What was compared.

    `records`; the largest `difference` of a number, relative like WITHIN; `ties`: labels that differ, all of them of
    records whose two best classes are equal but for rounding; `within`: what a difference may be.
    """

    records: int
    difference: float
    ties: int
    within: float = WITHIN

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        found = "no difference" if self.difference == 0 else f"largest difference {self.difference:.1g}"
        ties = f", {self.ties} ties decided otherwise" if self.ties else ""
        return f"proven on {self.records:,} records: labels identical{ties}, {found}"


def prove(
    reference: Any, form: Any, ground: Ground, more: Sequence[tuple[str, pa.RecordBatch]] = ()
) -> Proof:
    """Ask both models (`infer`, and the form's `scores`) the same questions, and `more` records by the names of groups.

    Raises NotCompiled: they differ, or one answers what the other refuses.
    """
    if not reference.signature.outputs.equals(form.signature.outputs):
        msg = f"it answers {form.signature.outputs.names} in place of {reference.signature.outputs.names}, or other types"
        raise NotCompiled(msg)
    records, largest, ties = 0, 0.0, 0
    for name, batch in [("example", ground.example), *more, *questions(ground, DRAWN)]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            difference, tied = _compared(reference, form, batch, name)
        records, largest, ties = records + batch.num_rows, max(largest, difference), ties + tied
    return Proof(records, largest, ties)


def _compared(reference: Any, form: Any, batch: pa.RecordBatch, name: str) -> tuple[float, int]:
    """The largest difference, and how many labels differ in ties."""
    good, refused = _refused(form, batch)
    try:
        expected = reference.infer(batch)
    except REFUSALS:
        _same_refusals(reference, form, batch, name)
        batch = good
        try:
            expected = reference.infer(batch)
        except REFUSALS as error:
            msg = f"it answers records ({name}) that scikit-learn refuses: {error}"
            raise NotCompiled(msg.splitlines()[0]) from error
    else:
        if refused:
            msg = f"it refuses records ({name}) that scikit-learn answers"
            raise NotCompiled(msg)
    if not batch.num_rows:
        return 0.0, 0
    found = form.infer(batch)
    largest, ties = 0.0, 0
    for column, other, field in zip(expected.columns, found.columns, expected.schema, strict=True):
        if _is_number(field.type):
            largest = max(largest, _difference(column, other, field.name, name))
        else:
            rows = _differing(column, other)
            if len(rows) and not _tied(form, batch, rows):
                msg = f"it gives {len(rows)} of {len(column)} records ({name}) another label"
                raise NotCompiled(msg)
            ties = max(ties, len(rows))
    return largest, ties


def _refused(form: Any, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, bool]:
    """The records that the form answers, and whether there are others."""
    asked = batch.num_rows
    while True:  # a form that refuses some records has not looked at all that is wrong with the others
        try:
            form.infer(batch)
        except RecordErrors as error:
            keep = np.setdiff1d(np.arange(batch.num_rows), error.rows)
            batch = chosen_rows(batch, keep)
        else:
            return batch, batch.num_rows < asked


def _same_refusals(reference: Any, form: Any, batch: pa.RecordBatch, name: str) -> None:
    """Records one by one: both answer, or both refuse."""
    for row in np.linspace(0, batch.num_rows - 1, min(ALONE, batch.num_rows)).astype(int):
        one = batch.slice(int(row), 1)
        try:
            reference.infer(one)
            answered = True
        except REFUSALS:
            answered = False
        if answered == _refused(form, one)[1]:
            msg = f"of a record ({name}), one of both answers what the other refuses"
            raise NotCompiled(msg)


def _difference(column: pa.Array, other: pa.Array, answer: str, name: str) -> float:
    one, two = (_flat(values) for values in (column, other))
    if not np.array_equal(np.isfinite(one), np.isfinite(two)):
        msg = (
            f"its answers {answer!r} ({name}) are finite where scikit-learn's are not, or the other way round"
        )
        raise NotCompiled(msg)
    usual = np.isfinite(one)
    if not usual.any():
        return 0.0
    scale = 1.0 if answer.startswith("y_proba") else float(np.abs(one[usual]).max()) or 1.0
    found = float(np.abs(one[usual] - two[usual]).max()) / scale
    if not found <= WITHIN:
        msg = f"its answers {answer!r} ({name}) are off by {found:.1g}, more than {WITHIN:g}"
        raise NotCompiled(msg)
    return found


def _differing(column: pa.Array, other: pa.Array) -> list[int]:
    pairs = zip(column.to_pylist(), other.to_pylist(), strict=True)
    return [row for row, (one, two) in enumerate(pairs) if one != two]


def _tied(form: Any, batch: pa.RecordBatch, rows: list[int]) -> bool:
    """Whether the two best classes of all these records are equal but for rounding."""
    scores = np.asarray(form.scores(batch))
    margin = np.abs(scores) if scores.ndim == 1 else np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
    return bool((margin[rows] <= WITHIN * (float(np.abs(scores).max()) or 1.0)).all())


def _flat(values: pa.Array) -> np.ndarray:
    found: np.ndarray = (values.flatten() if pt.is_fixed_size_list(values.type) else values).to_numpy(
        zero_copy_only=False
    )
    return found.astype(np.float64)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_floating(kind.value_type if pt.is_fixed_size_list(kind) else kind))
