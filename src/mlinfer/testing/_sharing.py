"""The check that threads may share a model: at one line of its code after the other, another thread asks it, too."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa

from mlinfer import Host, Model, Stateful
from mlinfer.testing._asking import HostCase, compare, turned, values
from mlinfer.testing._kit import Skip
from mlinfer.testing._tracing import Place, Tracer, spread, untraced, wait_for

MOST = 40
WAITS = 0.25
"""Seconds that the first one stands still for the other: who has not come through by then waits for a lock."""


def check_shared(case: HostCase, _: Path) -> str:
    """Nobody gets an answer that belongs to another, wherever a thread is when the next one comes."""
    host = case.factory()
    if not host.shared:
        msg = "the host says shared=False: each worker has a model of its own"
        raise Skip(msg)
    with host.open() as model:
        if isinstance(model, Stateful):
            msg = "the model has a memory, so each partition has one of its own"
            raise Skip(msg)
        mine, theirs = case.inputs(model.signature), turned(case.inputs(model.signature))
        wanted = [values(model.infer(mine)), values(model.infer(theirs))]
        seen: dict[Place, None] = {}
        own = _traced(host, model, mine, seen.setdefault)[1]
        places = spread([place for place in seen if place[0] in own], MOST)
        for place in places:
            for found, due in zip(_at_once(host, model, (mine, theirs), place), wanted, strict=True):
                what = (
                    f"the same answers when another thread asks at line {place[1]} of {Path(place[0]).name}"
                )
                compare(found, due, what, "keep nothing of a batch in the model, or say shared = False")
        return f"asked by another thread at {len(places)} lines of its own"


def _at_once(
    host: Host, model: Model, inputs: tuple[pa.RecordBatch, pa.RecordBatch], place: Place
) -> list[Any]:
    """The answers of two threads, of which the second one comes while the first one is at a line."""
    other = _Other(model, inputs[1])
    waiting = [place]

    def act(here: Place) -> None:
        if here in waiting:
            waiting.clear()
            other.start()
            wait_for(other, WAITS)

    first, _ = _traced(host, model, inputs[0], act)
    if waiting:  # a library that warms up passes some lines only once
        other.start()
    other.join()
    if other.error is not None:
        raise other.error
    return [first, other.found]


class _Other(Thread):
    def __init__(self, model: Model, inputs: pa.RecordBatch) -> None:
        super().__init__(daemon=True)
        self._model, self._inputs = model, inputs
        self.found: list[Any] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask once."""
        try:
            self.found = values(self._model.infer(self._inputs))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error


def _traced(
    host: Host, model: Model, inputs: pa.RecordBatch, act: Callable[[Place], object]
) -> tuple[list[Any], set[str]]:
    """The answers, with an eye on the lines that they pass; and the files that are the host's own."""
    tracer = Tracer((host, model), act)
    with untraced():
        tracer.begin(0)
        answers = model.infer(inputs)
        sys.settrace(None)
    return values(answers), tracer.own
