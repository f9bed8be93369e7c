"""What a server has done, in plain numbers; made into Prometheus' text when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16_384, 65_536)


class Histogram:
    """How many values lie between two bounds each, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def join(self, other: Histogram) -> None:
        """All of another one, which has the same bounds."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Counts:
    """The numbers. Each is written by one thread at a time."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rejects: Counter[str] = Counter()
        self.model_changes: Counter[str] = Counter()
        self.rows = 0
        self.queue, self.infer, self.write = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)
        self.batch = Histogram(SIZES)
        self.worker_restarts: int | None = None
        """None: there are no workers."""

    def join(self, other: Counts) -> None:
        """All of another server process."""
        self.requests.update(other.requests)
        self.rejects.update(other.rejects)
        self.model_changes.update(other.model_changes)
        self.rows += other.rows
        for name in ("queue", "infer", "write", "batch"):
            getattr(self, name).join(getattr(other, name))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a server has done, the models that answer there (name and version), and numbers that go up and down, by name."""

    counts: Counts = field(default_factory=Counts)
    models: Sequence[Mapping[str, str]] = ()
    now: Mapping[str, int] = field(default_factory=dict)


def exposition(figures: Figures) -> bytes:
    """All of it in Prometheus' text format, version 0.0.4."""
    counts = figures.counts
    lines = _head("model_info", "gauge", "The model that answers.")
    lines += [_line("model_info", model, 1) for model in figures.models]
    lines += _head(
        "requests_total", "counter", "Requests by path and status; other: no such path, or no request."
    )
    for (path, status), number in sorted(counts.requests.items()):
        lines.append(_line("requests_total", {"path": path, "status": str(status)}, number))
    lines += _head("rejects_total", "counter", "Bad records by reason.")
    lines += [
        _line("rejects_total", {"kind": kind}, number) for kind, number in sorted(counts.rejects.items())
    ]
    lines += _head("model_changes_total", "counter", "Newer versions of the model, taken or refused.")
    lines += [
        _line("model_changes_total", {"outcome": outcome}, number)
        for outcome, number in sorted(counts.model_changes.items())
    ]
    lines += [*_head("rows_total", "counter", "Records answered."), _line("rows_total", {}, counts.rows)]
    if counts.worker_restarts is not None:
        lines += _head(
            "worker_restarts_total", "counter", "Worker processes that were started in place of others."
        )
        lines.append(_line("worker_restarts_total", {}, counts.worker_restarts))
    for name, text, histogram in (
        ("queue_seconds", "Time a request waited for its batch.", counts.queue),
        ("infer_seconds", "Time of one batch in the model.", counts.infer),
        ("write_seconds", "Time to hand one batch of answers to the log.", counts.write),
        ("batch_rows", "Records in a batch.", counts.batch),
    ):
        lines += [*_head(name, "histogram", text), *_buckets(name, histogram)]
    for name, number in figures.now.items():
        lines += [f"# TYPE mlinfer_serve_{name} gauge", _line(name, {}, number)]
    return ("\n".join(lines) + "\n").encode()


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP mlinfer_serve_{name} {text}", f"# TYPE mlinfer_serve_{name} {kind}"]


def _buckets(name: str, histogram: Histogram) -> Iterator[str]:
    counts, total, below = list(histogram.counts), histogram.total, 0
    for bound, number in zip([*map(str, histogram.bounds), "+Inf"], counts, strict=True):
        below += number
        yield _line(f"{name}_bucket", {"le": bound}, below)
    yield _line(f"{name}_sum", {}, total)
    yield _line(f"{name}_count", {}, below)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    texts = [f'{label}="{_escaped(text)}"' for label, text in labels.items()]
    return f"mlinfer_serve_{name}{{{','.join(texts)}}} {value}" if texts else f"mlinfer_serve_{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
