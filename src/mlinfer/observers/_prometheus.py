"""A run as Prometheus metrics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mlinfer import (
    BatchInferred,
    BatchRead,
    BatchWritten,
    ConfigError,
    ModelChanged,
    ProgressCommitted,
    RecordsRejected,
    RetryScheduled,
    RunEnded,
    RunStarted,
    observer,
)

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class PrometheusMetrics:
    """Counts records, batches, commits and retries per pipeline; needs `mlinfer[metrics]`.

    Args:
        registry: where the metrics are registered; a registry of its own if there is none. `exposition()` gives its
            text for a scraper.

    Every metric has the label `pipeline`; rejects have `stage` and `kind` as well. Records count as delivered when they
    are durable.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self._metrics: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._name = "unnamed"

    def exposition(self) -> bytes:
        """All metrics of the registry in Prometheus' text format, version 0.0.4."""
        self._prepare()
        from prometheus_client import generate_latest

        assert self._registry is not None  # noqa: S101 - _prepare has made one
        return generate_latest(self._registry)

    @observer
    def run_started(self, event: RunStarted) -> None:
        """Register, and note the pipeline's name. Raises ConfigError without prometheus-client."""
        self._prepare()
        self._name = event.name

    @observer
    def batch_read(self, event: BatchRead) -> None:
        """Count records read."""
        self._of("read").inc(event.records)

    @observer
    def batch_inferred(self, event: BatchInferred) -> None:
        """Count a batch and time the model."""
        self._of("batches").inc()
        self._of("infer").observe(event.seconds)

    @observer
    def batch_written(self, event: BatchWritten) -> None:
        """Time the destination."""
        self._of("write").observe(event.seconds)

    @observer
    def records_rejected(self, event: RecordsRejected) -> None:
        """Count rejects by stage and kind."""
        for kind, count in event.reasons.items():
            self._metrics["rejected"].labels(self._name, event.stage, kind).inc(count)

    @observer
    def progress_committed(self, event: ProgressCommitted) -> None:
        """Count what has become durable."""
        self._of("delivered").inc(event.records)
        self._of("commit").observe(event.seconds)

    @observer
    def retry_scheduled(self, event: RetryScheduled) -> None:  # noqa: ARG002 - one more is all there is to say
        """Count."""
        self._of("retries").inc()

    @observer
    def model_changed(self, event: ModelChanged) -> None:
        """Count by what came of it: `taken` or `refused`."""
        self._metrics["changes"].labels(self._name, "refused" if event.problem else "taken").inc()

    @observer
    def run_ended(self, event: RunEnded) -> None:
        """Count runs by how they ended: `ok`, or the name of the error."""
        if self._metrics:
            self._metrics["runs"].labels(event.report.name, event.error or "ok").inc()

    def _of(self, metric: str) -> Any:
        return self._metrics[metric].labels(self._name)

    def _prepare(self) -> None:
        with self._lock:
            if self._metrics:
                return
            try:
                from prometheus_client import CollectorRegistry, Counter, Histogram
            except ImportError as error:
                msg = "metrics need prometheus-client: pip install 'mlinfer[metrics]'"
                raise ConfigError(msg) from error
            if self._registry is None:
                self._registry = CollectorRegistry()
            by, registry = ["pipeline"], self._registry

            def counter(name: str, text: str, labels: list[str]) -> Any:
                return Counter(f"mlinfer_{name}_total", text, labels, registry=registry)

            def seconds(name: str, text: str) -> Any:
                return Histogram(f"mlinfer_{name}_seconds", text, by, registry=registry)

            self._metrics = {
                "read": counter("records_read", "Records read from the source.", by),
                "delivered": counter("records_delivered", "Records durable at the destination.", by),
                "rejected": counter("records_rejected", "Records refused.", [*by, "stage", "kind"]),
                "batches": counter("batches", "Batches answered by the model.", by),
                "retries": counter("retries", "Waits after a transient failure.", by),
                "changes": counter(
                    "model_changes", "Newer versions of the model, taken or refused.", [*by, "outcome"]
                ),
                "runs": counter("runs", "Runs that have ended.", [*by, "outcome"]),
                "infer": seconds("infer", "Time of one batch in the model."),
                "write": seconds("write", "Time to hand one batch to the destination."),
                "commit": seconds("commit", "Time of one commit."),
            }
