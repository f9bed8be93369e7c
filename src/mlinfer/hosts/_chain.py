"""Several models, one behind the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pyarrow as pa

from mlinfer import (
    ComponentError,
    ConfigError,
    Exemplifies,
    Explains,
    Host,
    Model,
    Renews,
    SchemaError,
    SideTables,
    Signature,
    Stateful,
    conform,
)
from mlinfer.hosts._selected import check_host


class Chain(Host):
    """The answers of one host are the records of the next: `Chain(first, second)` answers what the last one answers.

    Each answer of a model goes to the next model's field of that name; `Selected` renames answers, and those that the next
    model does not ask for are dropped. A record is rejected if any of the models rejects it, or if an answer does not fit
    the next model. Models that remember earlier records, or report side tables, cannot be chained.

    Raises ConfigError when opened: a model wants a field that the one before does not answer, or in another type.

    >>> import mlinfer
    >>> @mlinfer.host(inputs={"celsius": "double"}, outputs={"kelvin": "double"}, takes="numpy", version="1")
    ... def kelvin(celsius):
    ...     return celsius + 273.15
    >>> @mlinfer.host(inputs={"kelvin": "double"}, outputs={"state": "string"}, takes="numpy", version="1")
    ... def water(kelvin):
    ...     return ["ice" if degrees < 273.15 else "water" for degrees in kelvin]
    >>> with Chain(kelvin, water).open() as model:
    ...     model.infer(pa.record_batch({"celsius": [-1.0, 20.0]})).to_pylist()
    [{'state': 'ice'}, {'state': 'water'}]
    """

    def __init__(self, first: Host, second: Host, *others: Host) -> None:
        self.hosts = (first, second, *others)
        for host in self.hosts:
            check_host("Chain", host)

    @property
    def shared(self) -> bool:  # type: ignore[override]  # the hosts', so it cannot be set
        """Whether all of them are."""
        return all(host.shared for host in self.hosts)

    @property
    def watch(self) -> bool:
        """Whether one of them does."""
        return any(getattr(host, "watch", False) for host in self.hosts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and other.hosts == self.hosts

    def __hash__(self) -> int:
        return hash(self.hosts)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.hosts))})"

    @contextmanager
    def open(self) -> Iterator[ChainedModels]:
        """Load all models. Raises ConfigError: they do not fit together."""
        with ExitStack() as stack:
            yield ChainedModels([stack.enter_context(host.open()) for host in self.hosts])


class ChainedModels:
    """Models that fit together."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        for model in models:
            if isinstance(model, Stateful | SideTables):
                what = "a memory" if isinstance(model, Stateful) else "side tables"
                msg = f"Chain: wanted models that only answer, found {model.signature.model_id!r} with {what}; run it in a pipeline of its own"
                raise ConfigError(msg)
        for before, after in pairwise(model.signature for model in models):
            _check(before, after)
        signatures = [model.signature for model in models]
        digest = hashlib.sha256("\0".join(one.fingerprint() for one in signatures).encode()).hexdigest()
        self.signature = Signature(
            signatures[0].inputs,
            signatures[-1].outputs,
            " > ".join(one.model_id for one in signatures),
            " > ".join(one.version for one in signatures),
            digest,
        )

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch. Raises RecordErrors: an answer on the way does not fit the next model; ComponentError: one is absent."""
        first, *others = self._models
        answers = first.infer(records)
        for before, model in zip(self._models, others, strict=False):
            if len(answers) != len(records):  # of the last one, the engine sees it
                msg = f"model {before.signature.model_id!r}: wanted {len(records)} answers for {len(records)} records, found {len(answers)}; a model must answer each record once, in order"
                raise ComponentError(msg)
            answers = model.infer(conform(answers, model.signature.inputs))
        return answers

    def newer(self) -> ChainedModels | None:
        """The chain with newer versions of its models. Raises ConfigError: there is one that cannot be taken."""
        newest = [(model.newer() if isinstance(model, Renews) else None) or model for model in self._models]
        changed = any(new is not old for new, old in zip(newest, self._models, strict=True))
        return ChainedModels(newest) if changed else None

    def explain(self) -> Sequence[str]:
        """What each model says of itself, in order."""
        lines = []
        for number, model in enumerate(self._models, 1):
            said = model.explain() if isinstance(model, Explains) else [model.signature.model_id]
            lines += [f"{number}. {line}" for line in said]
        return lines

    def example(self) -> pa.RecordBatch | None:
        """The first model's."""
        first = self._models[0]
        return first.example() if isinstance(first, Exemplifies) else None


def _check(before: Signature, after: Signature) -> None:
    answers = ", ".join(f"{field.name} {field.type}" for field in before.outputs)
    for field in after.inputs:
        if field.name not in before.outputs.names:
            msg = (
                f"Chain: {after.model_id!r} wants the field {field.name!r} ({field.type}), found {before.model_id!r} with the "
                f"answers {answers}; rename one with Selected(host, {{{field.name!r}: ...}})"
            )
            raise ConfigError(msg)
    nothing = pa.RecordBatch.from_pylist([], schema=before.outputs)
    try:
        conform(nothing, after.inputs)
    except SchemaError as error:
        msg = (
            f"Chain: {after.model_id!r} wants the field {error.field!r} as {error.wanted}, found {error.found} among the "
            f"answers of {before.model_id!r}; put a host in between that converts it"
        )
        raise ConfigError(msg) from error
