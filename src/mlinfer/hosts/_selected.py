"""Some of a host's answers, under names of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from mlinfer import ConfigError, Host, Model, Renews


def check_host(around: str, host: Any) -> None:
    """Raises ConfigError: this is no host, which another part was to stand around."""
    if isinstance(host, type) or not hasattr(host, "open"):
        msg = f"{around}: wanted a host, found {host!r:.100}; a model that was saved is SklearnHost('model.mlinfer')"
        raise ConfigError(msg)


def _check_named(answers: Any) -> None:
    names = [name for pair in answers.items() for name in pair] if isinstance(answers, Mapping) else [None]
    if not all(isinstance(name, str) for name in names):
        msg = f"Selected: wanted the answers as {{new_name: name}}, found {answers!r:.100}; write {{'score': 'y_pred'}}"
        raise ConfigError(msg)


@dataclass(frozen=True)
class Selected(Host):
    """Answers with some columns of another host: `Selected(host, {"score": "y_proba_1"})`.

    Args:
        host: the host that answers.
        answers: the wanted columns, `{new_name: name}`, in this order.

    >>> import mlinfer
    >>> @mlinfer.host(inputs={"n": "double"}, outputs={"low": "double", "high": "double"}, takes="numpy", version="1")
    ... def interval(n):
    ...     return {"low": n - 1, "high": n + 1}
    >>> with Selected(interval, {"at_most": "high"}).open() as model:
    ...     model.infer(pa.record_batch({"n": [1.0]})).to_pylist()
    [{'at_most': 2.0}]
    """

    host: Host
    answers: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for answers that are not named, and for what is no host."""
        check_host("Selected", self.host)
        _check_named(self.answers)

    @property
    def shared(self) -> bool:  # type: ignore[override]  # the inner host's, so it cannot be set
        """As the inner host says."""
        return self.host.shared

    @property
    def watch(self) -> bool:
        """As the inner host says."""
        return bool(getattr(self.host, "watch", False))

    @contextmanager
    def open(self) -> Iterator[Model]:
        """The inner model. Raises ConfigError: it has no such answer."""
        with self.host.open() as model:
            yield SelectedModel(model, self.answers)


class SelectedModel:
    """A model of which some answers are passed on; whatever else it can do, it still can."""

    def __init__(self, model: Model, answers: Mapping[str, str]) -> None:
        outputs = model.signature.outputs
        unknown = [name for name in answers.values() if name not in outputs.names]
        if unknown or not answers:
            msg = f"Selected: wanted answers of the model ({', '.join(outputs.names)}), found {unknown or 'none'}"
            raise ConfigError(msg)
        fields = [outputs.field(name).with_name(new) for new, name in answers.items()]
        # another selection under the same names is another answer: it must not pass for the same model
        chosen = f"{model.signature.digest} {sorted(answers.items())}"
        digest = hashlib.sha256(chosen.encode()).hexdigest()
        self.signature = replace(model.signature, outputs=pa.schema(fields), digest=digest)
        self._model, self._answers, self._names = model, answers, list(answers.values())

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch."""
        answers = self._model.infer(records)
        return pa.RecordBatch.from_arrays(
            [answers.column(name) for name in self._names], schema=self.signature.outputs
        )

    def newer(self) -> SelectedModel | None:
        """The same answers of a newer version. Raises ConfigError: there is one that cannot be taken."""
        found = self._model.newer() if isinstance(self._model, Renews) else None
        return None if found is None else SelectedModel(found, self._answers)

    def __getattr__(self, name: str) -> Any:
        """The inner model's powers, such as a memory; arrays are not asked for, answers are picked from batches."""
        if name.startswith("_") or name == "infer_arrays":
            raise AttributeError(name)
        return getattr(self._model, name)
