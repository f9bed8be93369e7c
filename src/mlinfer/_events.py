"""What happens during a run, told to whoever listens.

Observers are plugins: objects with some of the methods of `Hooks`, marked with `observer`. They are told once per batch,
never once per record, and what they raise ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlinfer._report import RunReport

PROJECT = "mlinfer"
_spec = pluggy.HookspecMarker(PROJECT)
observer = pluggy.HookimplMarker(PROJECT)
"""Marks a method as an observer's: `@mlinfer.observer`."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins; `expected` is the number of records still to come, None if nobody knows."""

    name: str
    run: str
    guarantee: str
    model: str
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class BatchRead:
    """A batch has arrived from the source; `records` of it, in `seconds`."""

    partition: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RecordsRejected:
    """Records were refused at a stage; `reasons` counts them by kind."""

    partition: str
    stage: str
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BatchInferred:
    """A batch was answered; `records` of it, in `seconds`."""

    partition: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchWritten:
    """Answers were handed to the destination; they are durable after the next ProgressCommitted."""

    partition: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ProgressCommitted:
    """All that was written is durable, and so is the progress of these partitions."""

    partitions: tuple[str, ...]
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """A part failed in a way that may pass; the engine tries again after `wait` seconds."""

    reason: str
    failures: int
    wait: float


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """A newer version of the model answers from here on; with a `problem` it could not be taken, and `was` goes on."""

    was: str
    now: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over; `error` is the name of the error that ended it, None if it ended well."""

    report: RunReport
    error: str | None = None


class Hooks:
    """The methods that an observer may have; each gets one event."""

    @_spec
    def run_started(self, event: RunStarted) -> None:
        """Before the first record."""

    @_spec
    def batch_read(self, event: BatchRead) -> None:
        """After each batch from the source."""

    @_spec
    def records_rejected(self, event: RecordsRejected) -> None:
        """After each batch with rejects, once per stage."""

    @_spec
    def batch_inferred(self, event: BatchInferred) -> None:
        """After each batch that was answered."""

    @_spec
    def batch_written(self, event: BatchWritten) -> None:
        """After each batch handed to the destination."""

    @_spec
    def progress_committed(self, event: ProgressCommitted) -> None:
        """After each commit."""

    @_spec
    def retry_scheduled(self, event: RetryScheduled) -> None:
        """Before each wait."""

    @_spec
    def model_changed(self, event: ModelChanged) -> None:
        """When a host that watches its model has found another version."""

    @_spec
    def run_ended(self, event: RunEnded) -> None:
        """After everything is closed, also when the run failed."""


def manager(observers: tuple[object, ...]) -> pluggy.PluginManager:
    """The hooks of one run."""
    found = pluggy.PluginManager(PROJECT)
    found.add_hookspecs(Hooks)
    for one in observers:
        found.register(one)
    found.check_pending()
    return found
