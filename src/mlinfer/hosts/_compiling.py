"""Gives a package its compiled form, if there is one and it is proven, and takes it from there again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Signature
from mlinfer.hosts._answers_of import Answer
from mlinfer.hosts._example import like
from mlinfer.hosts._feeding import feeder
from mlinfer.hosts._forms import Form, NotCompiled, Proof, compiled, prove
from mlinfer.hosts._forms._questions import Ground
from mlinfer.hosts._order import check_order
from mlinfer.hosts._signature_of import Study, answers_of, fed_by, returned_by

COMPILE = ("auto", "never")
SKLEARN = "scikit-learn"


@dataclass(frozen=True)
class Compiled:
    """A form and its proof, or why there is none."""

    form: Form | None
    why: str
    proof: Proof | None = None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        if self.form is None or self.proof is None:
            return {"form": None, "why": self.why}
        return {"form": self.form.name, "methods": list(self.form.methods), "proof": self.proof.to_json()}


def check_compile(asked: str) -> None:
    """Raises ConfigError: this is no way to compile."""
    if asked not in COMPILE:
        msg = f"compile: wanted {' or '.join(map(repr, COMPILE))}, found {asked!r}"
        raise ConfigError(msg)


def described(facts: Mapping[str, Any] | None) -> str:
    """What a manifest says of the compiled form, for people."""
    if not facts:
        return f"{SKLEARN}: the package was saved without a compiled form; save it again"
    if facts["form"] is None:
        return f"{SKLEARN}: {facts['why']}"
    return f"{facts['form']}, {Proof(**facts['proof'])}"


def form_of(
    estimator: Any, found: Study, example: pa.RecordBatch, given: Mapping[str, pa.Table | None]
) -> Compiled:
    """The form of an estimator whose study this is, proven on records around the example and on all that are `given`."""
    try:
        form = compiled(estimator, found.inputs)
        fed = fed_by(estimator, found.feed)
        form.methods = tuple(method for method in form.methods if hasattr(fed, method))
        returned = returned_by(fed, form.methods, found.feed, example)
        answers = answers_of(fed, form.methods, returned, expand=False)
        reference = Asked(feeder(found.feed, found.inputs), answers, _signature(found.inputs, answers))
        core = form.core
        ground = Ground(found.inputs, example, getattr(core, "columns", ()), getattr(core, "cuts", None))
        if hasattr(core, "tables"):
            ground = Ground(found.inputs, example, core.choices())
        if hasattr(core, "questions"):
            ground = Ground(found.inputs, example, texts=core.questions())
        more = [(name, like(table, found.inputs)) for name, table in given.items() if table is not None]
        twin = Form.load(form.dump(), "the compiled form")
        proof = prove(reference, asked_form(twin, form.methods, found.inputs, example), ground, more)
        if hasattr(twin.core, "in_numpy"):  # whoever opens the package may lack mlinfer-fast
            other = Form(twin.core.in_numpy(), twin.link)
            prove(reference, asked_form(other, form.methods, found.inputs, example), ground, more)
        return Compiled(form, "", proof)
    except NotCompiled as error:
        return Compiled(None, str(error))
    except Exception as error:  # noqa: BLE001 - an estimator may hold anything, and is asked as it is where no form is found
        first = (str(error).splitlines() or [""])[0]
        return Compiled(None, f"it could not be compiled ({type(error).__name__}: {first:.200})")


def asked_form(form: Form, methods: Sequence[str], inputs: pa.Schema, example: pa.RecordBatch) -> Asked:
    """A form ready to be asked, one column of lists for several values."""
    scores = form.scorer(inputs)
    answers = form_answers(form, methods, scores(example), expand=False)
    return Asked(scores, answers, _signature(inputs, answers))


def form_answers(form: Form, methods: Sequence[str], scores: Any, *, expand: bool) -> tuple[Answer, ...]:
    """The answers of a form, seen from its scores for an example."""
    return answers_of(form, methods, [getattr(form, method)(scores) for method in methods], expand=expand)


def _signature(inputs: pa.Schema, answers: Sequence[Answer]) -> Signature:
    return Signature(inputs, pa.schema([field for answer in answers for field in answer.fields]))


class Asked:
    """What is asked in the end: records are fed, the methods answer what that made of them, answers become columns."""

    def __init__(
        self, feed: Callable[[pa.RecordBatch], Any], answers: Sequence[Answer], signature: Signature
    ) -> None:
        self.scores, self._answers, self.signature = feed, answers, signature
        self._outputs = signature.outputs

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        if not records.num_rows:  # scikit-learn refuses to answer nothing
            return pa.RecordBatch.from_pylist([], schema=self._outputs)
        return pa.RecordBatch.from_arrays(self._columns(self.scores(records)), schema=self._outputs)

    def _arrays(self, data: Any) -> list[np.ndarray | pa.Array]:
        return [array for answer in self._answers for array in answer.arrays(answer.ask(data))]

    def _columns(self, data: Any) -> list[pa.Array]:
        columns: list[pa.Array] = []
        for answer in self._answers:
            returned = answer.ask(data)
            check_order(returned, self.signature.model_id)
            columns += answer.columns(returned)
        return columns
