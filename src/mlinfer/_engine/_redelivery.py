"""The step of a replay: answers that the destination has refused go there once more, the model is not asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlinfer._conform import Conform
from mlinfer._engine._left import Left
from mlinfer._engine._step import Answers, Step
from mlinfer._errors import RecordErrors
from mlinfer._rejects import ANSWERED, Rejected

if TYPE_CHECKING:
    from mlinfer._batch import Batch


class Redelivery(Step):
    """Answers rejected records, and passes on answers that are there already."""

    def _answer(self, batch: Batch) -> Answers:
        if not batch.partition.startswith(ANSWERED):
            return super()._answer(batch)
        left = Left(batch)
        fit = Conform(self.layout.output)(batch.records)
        rejects: tuple[Rejected, ...] = ()
        if fit.errors is not None:
            found = fit.errors
            errors = RecordErrors(found.rows, "refused", found.messages)
            rejects = (left.reject("write", errors),)
        return Answers(replace(batch, records=fit.records, ids=left.ids), rejects)
