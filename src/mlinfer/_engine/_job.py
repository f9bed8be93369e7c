"""Everything the engine needs to know about one pipeline, in one frozen object."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getattr_static
from threading import TIMEOUT_MAX
from types import UnionType
from typing import Literal

from mlinfer._checkpoint import Checkpoint
from mlinfer._engine._contract import check_schema
from mlinfer._errors import ConfigError
from mlinfer._guarantee import Level
from mlinfer._layout import Keep, Layout, lay_out
from mlinfer._protocols import DataDestination, DataSource, Host
from mlinfer._retry import Retry
from mlinfer._signature import Signature
from mlinfer._text import shown

OnChange = Literal["stop", "continue", "restart"]
Until = Literal["end", "idle"]
SUCH_AS = {
    "source": "ParquetSource(path) or MemorySource(records)",
    "host": "SklearnHost(model)",
    "destination": "SqlDestination(url, table=...)",
}


@dataclass(frozen=True, slots=True)
class Batching:
    """How many records the model sees at once, at most: a speed setting, answers do not depend on it.

    A batch is what has piled up while the model was busy, so it may be smaller; nobody waits for it to fill.
    """

    max_records: int = 65_536
    max_bytes: int = 32 * 2**20

    def __post_init__(self) -> None:
        """Raise ConfigError for sizes that cannot work."""
        sizes: tuple[object, ...] = (self.max_records, self.max_bytes)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            msg = f"batching: wanted positive sizes, in whole numbers, found {self}"
            raise ConfigError(msg)


MOST_WORKERS = 1024
"""Each opens a model: with more, a slip of the keyboard would keep the machine busy before anybody could stop it."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many batches are inferred at the same time, on threads or, where the model is Python code, in processes."""

    count: int = 1
    kind: Literal["thread", "process"] = "thread"

    def __post_init__(self) -> None:
        """Raise ConfigError for a number or a kind that cannot work."""
        count: object = self.count
        right = isinstance(count, int) and 1 <= count <= MOST_WORKERS
        if not right or self.kind not in ("thread", "process"):
            msg = f"workers: wanted a count of 1 to {MOST_WORKERS:,} and the kind 'thread' or 'process', found {self}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many records may be bad before the run stops: `count` in all, `ratio` of the last `window` records.

    `window` records in a row are looked at wherever they begin and end; a run of fewer, but 20 or more, is judged as a whole
    when it ends.
    """

    count: int | None = None
    ratio: float | None = 0.05
    window: int = 1000

    def __post_init__(self) -> None:
        """Raise ConfigError for a budget that could never be spent, or that is spent before the first record."""
        ratio_fits = self.ratio is None or 0 <= self.ratio <= 1
        if not ratio_fits or (self.count is not None and self.count < 0) or self.window < 1:
            msg = f"budget: wanted a ratio from 0 to 1, a count of 0 or more and a window of 1 or more, found {self}"
            raise ConfigError(msg)


SETTINGS: dict[str, tuple[type | UnionType, str]] = {
    "name": (str | None, "a text"),
    "keep": (Collection, "a list of columns"),
    "columns": (Mapping, "names by name, {model_name: source_name}"),
    "side": (Mapping, "destinations by name, {table: destination}"),
    "checkpoint": (Checkpoint | None, "Checkpoint(path)"),
    "budget": (Budget, "Budget(...)"),
    "batching": (Batching, "Batching(...)"),
    "retry": (Retry, "Retry(...)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One pipeline, as the engine runs it; see `InferencePipeline` for the meaning of each field."""

    source: DataSource
    host: Host
    destination: DataDestination
    name: str | None = None
    keep: Keep = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    lineage: Sequence[str] = ()
    require: str | None = None
    rejects: DataDestination | None = None
    side: Mapping[str, DataDestination] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    on_change: OnChange = "stop"
    budget: Budget = field(default_factory=Budget)
    batching: Batching = field(default_factory=Batching)
    workers: Workers = field(default_factory=Workers)
    timeout: float | None = None
    retry: Retry = field(default_factory=Retry)
    observers: tuple[object, ...] = ()
    replaying: bool = False
    """The source is the pipeline's own rejects: what is delivered is marked there, and no other run is taken over."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is no part, such as a path or an estimator, and for settings of another kind."""
        for name, (kind, wanted) in SETTINGS.items():
            if not isinstance(given := getattr(self, name), kind):
                msg = f"{name}: wanted {wanted}, found {given!r}"
                raise ConfigError(msg)
        if self.name is not None and any("\ud800" <= char <= "\udfff" for char in self.name):
            msg = f"name: wanted a text that UTF-8 can hold, found {self.name!r}"
            raise ConfigError(msg)
        if self.require is not None:
            Level.named(self.require)
        if self.on_change not in ("stop", "continue", "restart"):
            msg = f"on_change: wanted 'stop', 'continue' or 'restart', found {self.on_change!r}"
            raise ConfigError(msg)
        limit: object = self.timeout
        if limit is not None and not (isinstance(limit, int | float) and 0 < limit <= TIMEOUT_MAX):
            msg = f"timeout: wanted a positive number of seconds, {TIMEOUT_MAX:,.0f} at most, found {limit!r}"
            raise ConfigError(msg)
        self._check_parts()

    def _check_parts(self) -> None:
        rejects = [] if self.rejects is None else [("destination", self.rejects)]
        side = [("destination", one) for one in self.side.values()]
        main = [("source", self.source), ("host", self.host), ("destination", self.destination)]
        for role, part in [*main, *rejects, *side]:
            if isinstance(part, type) or not _may_have(part, "partitions" if role == "source" else "open"):
                msg = f"wanted a {role}, such as {SUCH_AS[role]}, found {_in_short(part)}"
                raise ConfigError(msg)

    def lay_out(self, signature: Signature) -> Layout:
        """The columns of a run with a model of this signature. Raises ConfigError or SchemaError; may look at the source."""
        known, where = self.source.schema(), repr(self.source)
        check_schema(known, self.source)
        return lay_out(signature, known, self.keep, self.columns, lineage=self.lineage, where=where)


def _may_have(part: object, method: str) -> bool:
    """Whether a part may have a method; nothing is asked of the part itself, for that could be work."""
    if getattr_static(part, method, None) is not None:
        return True
    # a data frame has `__getattr__`, too: for its columns
    return hasattr(type(part), "__getattr__") and not hasattr(type(part), "__array__")


def _in_short(part: object) -> str:
    if isinstance(part, type):
        return f"the class {part.__name__}"
    if part is None:
        return "None"
    text = shown(part, 80)
    return type(part).__name__ if "\n" in text else f"{type(part).__name__} {text}"
