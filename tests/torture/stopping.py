"""Runs that are asked to stop, and runs that wake up after another one took over."""

import os
import signal
import time

from torture.figures import Figures, check
from torture.harness import FENCED, tortured

LOCKED = {"jsonl", "csv"}  # the second run does not even start
ASLEEP = ["dest.write.before", "dest.write.after", "dest.commit.before"]
ASLEEP_ANYWHERE = [*ASLEEP, "source.read.after", "host.infer.before", "dest.write.partial"]
INSIDE = ["dest.begin", "dest.write.partial"]  # of a transaction: whoever takes over waits for its end
PLACES = {"sqlite": ASLEEP + INSIDE, "postgres": ASLEEP + INSIDE, "parquet": ASLEEP_ANYWHERE}


def by_sigterm(kind, seed, stops):
    """So many runs are asked to stop at any moment; each ends well, and nothing is delivered twice, rejects included."""
    with tortured(kind, seed) as torture:
        left = sum(torture.terminate_at_any_time() for _ in range(stops))
        check(left >= stops / 2, f"only {left} of {stops} were stopped in their middle", torture)
        torture.finish()
        return Figures(stops, torture.verdict(rejects_once=True), between=left)


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
    for _ in range(2000):
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
