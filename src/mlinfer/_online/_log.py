"""The prediction log: the pipeline's destination, written behind the answers, never in their way."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import numpy as np

from mlinfer._choosing import chosen_rows
from mlinfer._clock import SystemClock
from mlinfer._engine import (
    Answers,
    Budget,
    Delivery,
    Job,
    Outputs,
    Running,
    Spending,
    Tally,
    fingerprint,
    refused_rows,
)
from mlinfer._errors import FencedError, TransientError
from mlinfer._events import manager
from mlinfer._layout import Layout
from mlinfer._online._backlog import REST_SECONDS, Backlog, Outcome, Refusals, Stored, Waits, tell
from mlinfer._online._counts import Counts
from mlinfer._online._refusals import NOT_STORED
from mlinfer._protocols import Scope
from mlinfer._retry import Retry
from mlinfer._text import count

ENTRY_SECONDS = 0.2
"""How long answers are waited for before the log looks whether a commit is due."""
AGAIN_SECONDS = 30.0
"""After a failure that does not pass by itself: a full disk, say, in which somebody makes room."""
MOST_WAITING = 1000
"""Batches of answers that share a commit, at most."""
Kept = Callable[[list[Refusals]], None]
"""Is told that all that was delivered is durable, but for these rows of each piece."""
_logger = logging.getLogger("mlinfer")
_dice = random.Random()  # noqa: S311 - jitter, not a secret


class Sampled:
    """Hands a share of the answers on to a log, drawn by chance record by record; the others count as stored."""

    def __init__(self, log: Callable[[Answers, Stored | None], None], share: float) -> None:
        self._log, self._share = log, share
        self._draw = np.random.default_rng().random

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Remember some of these."""
        rows = np.flatnonzero(self._draw(len(answers.answered)) < self._share)
        if len(rows):
            batch = answers.batch
            records = chosen_rows(batch.records, rows)
            chosen = replace(batch, records=records, ids=batch.ids.take(rows))
            self._log(replace(answers, answered=chosen), stored and _of_all(stored, rows))
        elif stored is not None:
            stored(None)


def _of_all(stored: Stored, rows: np.ndarray) -> Stored:
    """Whoever waits for some rows, by their places among all."""

    def told(outcome: Outcome) -> None:
        if isinstance(outcome, dict):
            outcome = {int(rows[row]): why for row, why in outcome.items()}
        stored(outcome)

    return told


class PredictionLog:
    """Hands answers to the destination on a thread of its own.

    Answers that find the backlog full or the destination failing are dropped and counted. After a failure the destination is
    opened again: soon if the failure is transient, after a while if not, and never if another server has taken it over. Whoever
    waits for answers to be durable shares a commit with all that came meanwhile; what the destination refuses is his alone.
    """

    def __init__(self, opened: Callable[[ExitStack, Kept], Delivery], retry: Retry) -> None:
        self._opened, self._retry = opened, retry
        self._clock = SystemClock()
        self._backlog = Backlog()
        # what was delivered since the last commit: who waits for it, and how many answers
        self._pieces: list[tuple[list[Waits], int]] = []
        self._waiting = 0
        self.counts: Counts | None = None
        self._stack = ExitStack()
        self._delivery: Delivery | None = opened(self._stack, self._kept)
        self._failures, self._again = 0, 0.0
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name="mlinfer-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many answers it lacks."""
        return self._backlog.dropped + self._lost

    def __call__(self, answers: Answers, stored: Stored | None = None) -> None:
        """Remember answers for writing; returns at once. `stored` is called when they are durable, or cannot be."""
        self._backlog.put(answers, stored)

    def close(self) -> None:
        """Write what is waiting, and end."""
        self._backlog.end()
        self._thread.join()
        if self.dropped:
            _logger.error("the prediction log lacks %s", count(self.dropped, "answer"))

    def _work(self) -> None:
        while True:
            try:
                # with somebody waiting, take what is there, and then commit for all
                entry = self._backlog.take(wait=not self._waiting, seconds=ENTRY_SECONDS)
            except queue.Empty:
                self._try(lambda delivery: delivery.commit() if self._waiting else delivery.commit_if_due())
                continue
            if entry is None:
                self._try(lambda delivery: delivery.commit())
                self._try(lambda _: self._stack.close())
                return
            self._write(*entry)
            if not entry[1] and self._backlog.empty:
                time.sleep(REST_SECONDS)

    def _write(self, answers: Answers, stored: list[Waits]) -> None:
        begun = self._clock.monotonic()
        if self._delivery is None and begun >= self._again:
            self._try(None)
        if self._delivery is None:
            self._lost += len(answers.batch)
            tell(stored, NOT_STORED)
            return
        self._pieces.append((stored, len(answers.batch)))
        self._waiting += len(stored)
        self._try(lambda delivery: delivery.deliver(answers))
        if self._waiting < MOST_WAITING:
            self._try(lambda delivery: delivery.commit_if_due())
        else:
            self._try(lambda delivery: delivery.commit())
        if self.counts is not None:
            self.counts.write.add(self._clock.monotonic() - begun)

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        """Tell an outcome for each of the oldest pieces. Later ones wait on: a commit before a new version has none of them."""
        told, self._pieces = self._pieces[: len(outcomes)], self._pieces[len(outcomes) :]
        self._waiting = sum(len(waits) for waits, _ in self._pieces)
        for (waits, _), outcome in zip(told, outcomes, strict=True):
            tell(waits, outcome)

    def _try(self, action: Callable[[Delivery], None] | None) -> None:
        """Act on the destination, or open it again (None). What goes wrong is told here and must not stop the answers."""
        try:
            if action is None:
                self._delivery = self._opened(self._stack, self._kept)
            elif self._delivery is not None:
                action(self._delivery)
        except TransientError as error:
            self._failures += 1
            self._let_go(self._clock.monotonic() + self._retry.wait(self._failures, error.wait, _dice))
            _logger.warning(
                "the prediction log failed for the moment; answers go on without it", exc_info=True
            )
        except FencedError as error:
            self._let_go(float("inf"))
            text = "the prediction log has another server now; this one stores nothing more: %s"
            _logger.error(text, error)  # noqa: TRY400 - nothing is broken, and the message says it all
        except Exception:
            self._let_go(self._clock.monotonic() + AGAIN_SECONDS)
            _logger.exception("the prediction log failed; answers go on without it")

    def _let_go(self, again: float) -> None:
        self._delivery, self._again = None, again
        self._lost += sum(rows for _, rows in self._pieces)
        with suppress(Exception):  # the failure that led here is the one to tell
            self._stack.close()
        self._tell([NOT_STORED] * len(self._pieces))

    def _kept(self, refused: list[Refusals]) -> None:
        """What was written is durable, without the rows of each piece that the destination has refused."""
        self._failures = 0
        pieces = zip(self._pieces, refused, strict=False)  # of a piece behind them, this says nothing
        self._lost += sum(_unheard(waits, rows) for (waits, _), rows in pieces)
        self._tell(refused)


def _unheard(waits: list[Waits], refused: Refusals) -> int:
    """How many refused rows nobody waits for: whoever waits has no answer then, and the log lacks none."""
    return sum(not any(start <= row < start + rows for _, start, rows in waits) for row in refused)


class Refusing(Tally):
    """Knows which rows of what was delivered before the latest commit the destination has refused."""

    latest: list[Refusals]

    def committed(self, partitions: tuple[str, ...], held: list[Answers], seconds: float) -> None:
        """These answers are durable."""
        super().committed(partitions, held, seconds)
        self.latest = [refused_rows(answers) for answers in held]


@contextmanager
def prediction_log(job: Job, layout: Layout, run: str) -> Iterator[PredictionLog]:
    """Open the pipeline's destination as a log. Its scope is NAME/serve: it never fences the batch job."""
    job = replace(job, name=f"{job.name or 'unnamed'}/serve", rejects=None, side={}, checkpoint=None)
    epochs: dict[str, int] = {}  # opened again, it must not take over from a server that began later

    def opened(stack: ExitStack, kept: Kept) -> Delivery:
        with ExitStack() as opening:  # closed again when opening fails halfway
            outputs = opening.enter_context(Outputs(job, Scope(job.name or "", run=run), epochs))
            outputs.open(layout.output, {})
            stack.push(opening.pop_all())
        assert outputs.main is not None  # noqa: S101 - open() has set it
        signature, tally = layout.signature, Refusing(manager(()))
        running = Running(
            model=f"{signature.model_id}@{signature.version}", run=run, fingerprint=fingerprint(layout),
            clock=SystemClock(), tally=tally, spending=Spending(Budget(ratio=None), rejects_kept=True),
            durable=lambda _: kept(tally.latest), commit_seconds=job.destination.commit_seconds,
        )  # fmt: skip
        return Delivery(outputs.main, outputs, running)

    log = PredictionLog(opened, job.retry)
    try:
        yield log
    finally:
        log.close()
