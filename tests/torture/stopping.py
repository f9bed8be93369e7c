"""Runs that are asked to stop, and runs that wake up after another one took over."""

import os
import select
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from torture.figures import Figures, check
from torture.harness import FENCED, PATIENCE, tortured

LOCKED = {"jsonl", "csv"}  # the second run does not even start
ASLEEP = ["dest.write.before", "dest.write.after", "dest.commit.before"]
ASLEEP_ANYWHERE = [*ASLEEP, "source.read.after", "host.infer.before", "dest.write.partial"]
INSIDE = ["dest.begin", "dest.write.partial"]  # of a transaction: whoever takes over waits for its end
PLACES = {"sqlite": ASLEEP + INSIDE, "postgres": ASLEEP + INSIDE, "parquet": ASLEEP_ANYWHERE}


PHASES = ("starting", "at work", "ending")
"""Before the source is opened; until the report; and after it, while the interpreter ends."""
EARLY, GONE = "too early", "gone"
ENOUGH = 8
"""So many stops of a run that starts show whether most of them are heeded."""
PAUSE = 0.02  # slowly, or there is nothing left to stop


def by_sigterm(kind, seed, stops):
    """So many runs are asked to stop at any moment of their lives; each ends well, and nothing is delivered twice.

    Only in the first moments, before Python has come to mlinfer, nobody can heed a signal: those are counted apart.
    """
    with tortured(kind, seed) as torture:
        longest, seen, left = _life(torture), Counter(), 0
        for number in range(20 * stops):
            if sum(seen[phase] for phase in PHASES) == stops:
                break
            phase = PHASES[(seed + number) % len(PHASES)]
            seen[_stopped(torture, phase, torture.dice.random() * longest[phase])] += 1
            left += torture.stored() < torture.due()
        asked = seen[EARLY] + seen["starting"]  # of a few nothing follows: a child may be slow to begin
        check(
            asked < ENOUGH or seen[EARLY] <= seen["starting"] + 1,
            f"few were heeded at the start: {seen}",
            torture,
        )
        torture.finish()
        places = Counter({phase: seen[phase] for phase in PHASES})
        told = ", ".join(f"{count} {phase}" for phase, count in places.items())
        note = f"{told}; {seen[EARLY]} more before Python had come to mlinfer; {left} left records for the next run"
        return Figures(places.total(), torture.verdict(rejects_once=True), places, notes=[note])


def _life(torture):
    """How long each phase of a run takes that nobody stops."""
    torture.feed(200)
    with torture.no_more():
        times, child = [time.monotonic()], torture.start_command(PAUSE)
        child.stdout.readline()
        times.append(time.monotonic())
        _until_it_reports(child)
        times.append(time.monotonic())
        torture.end(child)
    times.append(time.monotonic())
    return dict(zip(PHASES, (after - before for before, after in pairwise(times)), strict=True))


def _until_it_reports(child):
    while (said := child.stdout.readline()) == "ready\n":
        pass
    return said


def _stopped(torture, phase, seconds):
    """Ask a run to stop so long after a phase has begun; the phase that it was in, EARLY or GONE."""
    torture.feed(200)
    with torture.no_more():
        child = torture.start_command(PAUSE)
        if phase != "starting":
            child.stdout.readline()
        if phase == "ending":
            _until_it_reports(child)
        time.sleep(seconds)
        now = _phase(child, phase)
        child.send_signal(signal.SIGTERM)
        torture.end(child, (0, -signal.SIGTERM) if now == EARLY else (0,))
        return "starting" if now == EARLY and not child.returncode else now


def _phase(child, at_least):
    """What a child is doing, from what it has said and what the system knows of it."""
    if child.poll() is not None:
        return GONE
    said = ""
    while select.select([child.stdout], [], [], 0)[0] and (piece := os.read(child.stdout.fileno(), 65536)):
        said += piece.decode()
    if at_least == "ending" or said.replace("ready\n", ""):
        return "ending"
    if at_least == "at work" or said:
        return "at work"
    return "starting" if _heeds(child.pid, signal.SIGTERM) else EARLY


def _heeds(pid, number):
    """Whether a process catches or ignores a signal, as Linux knows it."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigCgt"], 16) | int(status["SigIgn"], 16)) >> (number - 1) & 1)


def zombies(kind, seed, rounds):
    """So many times, a run falls asleep, another one takes over, and the first wakes up."""
    with tortured(kind, seed) as torture:
        torture.feed(60)
        torture.clean_run()
        for _ in range(rounds):
            point = torture.dice.choice(PLACES.get(kind, ASLEEP))
            sleeper = _asleep(torture, point)
            try:
                if kind in LOCKED:
                    _second_refused(torture, sleeper)
                else:
                    _first_refused(torture, sleeper, inside=point in INSIDE and kind != "parquet")
            finally:
                sleeper.kill()
        verdict = torture.finish()
        return Figures(rounds, verdict)


def _asleep(torture, point):
    """A run that stands still after its first commit, with records in its hands."""
    child = torture.start(f"{point}=stop@{torture.dice.randint(5, 12)}")
    child.stdout.readline()
    latest = time.monotonic() + PATIENCE
    while time.monotonic() < latest:
        pid, status = os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED)
        if pid:
            check(os.WIFSTOPPED(status), f"the first run did not fall asleep at {point}", torture)
            return child
        torture.feed_a_little()
    child.kill()
    msg = f"{torture.kind}, seed {torture.seed}: the first run never came to {point}"
    raise AssertionError(msg)


def _first_refused(torture, sleeper, *, inside):
    if not inside and torture.dice.random() < 0.5:
        torture.clean_run()
        held = torture.stored()
        _wake(torture, sleeper)
        check(torture.stored() == held, "the run that woke up has written", torture)
        return
    before = torture.stored()
    successor = torture.start()
    while not inside and torture.stored() == before:  # in a folder, whoever commits first goes on
        check(successor.poll() is None, "the second run ended", torture)
        torture.feed_a_little()
    if inside:
        time.sleep(0.5)
    _wake(torture, sleeper)
    torture.feed_until_dead(successor, 0.01, signal.SIGTERM)
    torture.end(successor)


def _wake(torture, sleeper):
    sleeper.send_signal(signal.SIGCONT)
    while sleeper.poll() is None:  # it may have had nothing in its hands: then the next records are refused
        torture.feed_a_little()
    _, _, complained = torture.end(sleeper, {FENCED})
    check("'torture'" in complained and "another" in complained, f"it says: {complained}", torture)


def _second_refused(torture, sleeper):
    with torture.no_more():
        held = torture.stored()
        _, _, complained = torture.end(torture.start(), {FENCED})
        check("only user" in complained, f"it says: {complained}", torture)
        check(torture.stored() == held, "the run that was refused has written", torture)
        sleeper.send_signal(signal.SIGCONT)
        torture.end(sleeper)
