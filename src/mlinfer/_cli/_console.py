"""The page at the admin port: the pipeline as a picture, with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

STYLE = Path(__file__).with_name("console.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("console.js").read_text(encoding="utf-8")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title><style>{style}</style></head>
<body><header><h1>{name}</h1><p id="state" role="status">asking</p></header>
<main data-word="{word}" data-opened="{opened}">
<div class="flow">{boxes}</div>
<div class="more">{more}</div>
</main><script>{script}</script></body></html>
"""
Kind = Literal["rate", "total", "time", "mean"]


@dataclass(frozen=True, slots=True)
class Box:
    """One part of the pipeline: what it is, and its figures as (label, kind, metric)."""

    title: str
    what: str
    figures: Sequence[tuple[str, Kind, str]]
    label: str = ""
    """The metric whose labels `model` and `version` are shown instead of `what`."""

    def html(self) -> str:
        """The box."""
        lines = "".join(f'<dt>{label}</dt><dd data-{kind}="{of}">–</dd>' for label, kind, of in self.figures)
        label = f' data-label="{self.label}"' if self.label else ""
        return (
            f"<section><h2>{escape(self.title)}</h2>"
            f'<p class="what soft"{label}>{escape(self.what)}</p><dl>{lines}</dl></section>'
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """All that the page shows. `lists`: (title, metric, what is said while it is empty)."""

    name: str
    word: str
    boxes: Sequence[Box]
    lists: Sequence[tuple[str, str, str]]
    opened: bool = True

    def html(self) -> bytes:
        """The page."""
        more = [
            f'<section><h2>{escape(title)}</h2><dl data-list="{metric}" data-none="{escape(none)}">{escape(none)}</dl></section>'
            for title, metric, none in self.lists
        ]
        texts: dict[str, Any] = {
            "name": escape(self.name), "word": self.word, "opened": "yes" if self.opened else "no",
            "boxes": "".join(box.html() for box in self.boxes), "more": "".join(more),
        }  # fmt: skip
        return PAGE.format(**texts, style=STYLE, script=SCRIPT).encode()


def run_picture(name: str, source: str, host: str, destination: str) -> Picture:
    """A run: from its source to its destination."""
    return Picture(
        name, "running",
        [
            Box("Source", source, [("records", "rate", "mlinfer_records_read_total"), ("read", "total", "mlinfer_records_read_total")]),
            Box("Host", host, [("time p50 · p99", "time", "mlinfer_infer_seconds"), ("batches", "total", "mlinfer_batches_total")]),
            Box("Destination", destination, [
                ("records", "rate", "mlinfer_records_delivered_total"),
                ("delivered", "total", "mlinfer_records_delivered_total"),
                ("write p50 · p99", "time", "mlinfer_write_seconds"),
                ("commit p50 · p99", "time", "mlinfer_commit_seconds"),
            ]),
        ],
        [("Rejects", "mlinfer_records_rejected_total", "no rejects yet"),
         ("Model changes", "mlinfer_model_changes_total", "none yet")],
    )  # fmt: skip


def serve_picture(name: str, where: str, host: str, log: str, *, opened: bool) -> Picture:
    """A server: from requests to the log."""
    own = "mlinfer_serve_"
    return Picture(
        name, "serving",
        [
            Box("HTTP", where, [("requests", "rate", f"{own}requests_total"), ("rows", "rate", f"{own}rows_total"),
                ("rows answered", "total", f"{own}rows_total"), ("connections", "total", f"{own}connections")]),
            Box("Queue", "requests that wait for the model", [("requests", "total", f"{own}queue_requests"),
                ("rows", "total", f"{own}queue_rows"), ("wait p50 · p99", "time", f"{own}queue_seconds")]),
            Box("Host", host, [("time p50 · p99", "time", f"{own}infer_seconds"), ("batch, mean", "mean", f"{own}batch_rows"),
                ("batches", "total", f"{own}batch_rows_count")], label=f"{own}model_info"),
            Box("Log", log, [("write p50 · p99", "time", f"{own}write_seconds"), ("dropped", "total", f"{own}log_dropped")]),
        ],
        [("Requests", f"{own}requests_total", "no requests yet"), ("Rejects", f"{own}rejects_total", "no rejects yet")],
        opened=opened,
    )  # fmt: skip
