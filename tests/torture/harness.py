"""The kill loop: feed, start, kill, start again; at the end one clean run, and the oracle."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from torture.oracle import answers, judge
from torture.records import record

TESTS = Path(__file__).parents[1]
PATIENCE = 60
FENCED = 3
POINTS = (
    "source.open source.read.before source.read.after host.load.before host.load.after host.infer.before "
    "host.infer.after dest.write.before dest.write.after dest.write.partial rejects.write.before rejects.write.after "
    "dest.commit.before dest.commit.after"
).split()


@dataclass
class Torture:
    """One pipeline, its growing input and its output, in a folder.

    `kills` counts them by place, `between` those that fell between the first commit and the last.
    """

    folder: Path
    kind: str
    seed: int
    given: dict = field(default_factory=dict)
    kills: Counter = field(default_factory=Counter)
    between: int = 0

    def __post_init__(self):
        self.dice = random.Random(self.seed)
        (self.folder / "input").mkdir(parents=True)

    # --- input -------------------------------------------------------------------------------------------------------

    def feed(self, files=3, rows=40):
        """Append to one file and add some new ones; partitions and their records are never taken away."""
        if self.given:
            self._append(self.dice.choice(sorted(self.given)), self.dice.randrange(1, rows))
        for _ in range(files):
            self._append(f"{len(self.given):04}.jsonl", self.dice.randrange(rows // 2, rows + 1))

    def feed_queue(self, messages):
        """Put messages into the queue's folder; one partition, so that the oracle can tell their order."""
        start = self.given.get("all", 0)
        for n in range(start, start + messages):
            scratch = self.folder / "input" / f"{n:06}.new"
            scratch.write_text(json.dumps(record("all", n)), "utf-8")
            scratch.rename(scratch.with_suffix(".json"))
        self.given["all"] = start + messages

    def _append(self, name, rows):
        start = self.given.get(name, 0)
        with (self.folder / "input" / name).open("a") as file:
            file.writelines(json.dumps(record(name, n)) + "\n" for n in range(start, start + rows))
        self.given[name] = start + rows

    # --- children ----------------------------------------------------------------------------------------------------

    def start(self, failpoints="", pause=0.001):
        """A child at work."""
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "MLINFER_TEST": "1",
            "MLINFER_FAILPOINTS": failpoints,
            "PYTHONPATH": path,
            "TORTURE_CHILD": "1",
        }
        arguments = [sys.executable, "-m", "torture.job", str(self.folder), self.kind, str(pause)]
        return subprocess.Popen(
            arguments,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def run(self, failpoints=""):
        """A child from its start to its end: exit code and output."""
        return self.end(self.start(failpoints))

    def end(self, child):
        """Wait for a child: exit code and output. Any other end than success, SIGKILL or a fence is an error here."""
        try:
            said, complained = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise
        if child.returncode not in {0, FENCED, -signal.SIGKILL}:
            msg = f"seed {self.seed}: the child ended with {child.returncode}: {complained}"
            raise AssertionError(msg)
        return child.returncode, said

    # --- rounds ------------------------------------------------------------------------------------------------------

    def kill_at(self, point, hit):
        """One round: new input, and a run that dies at the n-th time it comes to a place. Says whether it did."""
        self._more()
        code, _ = self.run(f"{point}=kill@{hit}")
        return self._count(point, code)

    def kill_at_any_time(self, longest=0.3):
        """One round: new input, and a run that dies at a moment that no name was given to."""
        self._more()
        child = self.start()
        wait_for_ready(child)
        time.sleep(self.dice.random() * longest)
        child.kill()
        code, _ = self.end(child)
        return self._count("any time", code)

    def loop(self, points, times, most_hits=8):
        """Kill at every place this many times; a hit that never comes is tried again nearer to the start."""
        for point in [*points] * times:
            hit = self.dice.randrange(1, most_hits + 1)
            while not self.kill_at(point, hit):
                if hit == 1:
                    msg = f"seed {self.seed}: no run came to {point}"
                    raise AssertionError(msg)
                hit = max(1, hit // 2)

    def finish(self, **options):
        """A clean run to the end, and what the oracle says; a further run must find nothing to do."""
        assert self.run()[0] == 0
        code, said = self.run()
        assert (code, said.splitlines()[-1]) == (0, "0 0"), said
        return judge(self.folder, self.kind, self.given, **options)

    def _more(self):
        if self.kind in {"queue", "eager-queue"}:
            self.feed_queue(100)
        else:
            self.feed()

    def _count(self, point, code):
        if code != -signal.SIGKILL:
            return False
        self.kills[point] += 1
        self.between += 0 < self.stored() < self.due()
        return True

    def stored(self):
        """The number of answers at the destination."""
        return len(answers(self.folder, self.kind))

    def due(self):
        """The number of answers that the input asks for."""
        records = (record(partition, n) for partition, count in self.given.items() for n in range(count))
        return sum(one["x"] is not None for one in records)


def wait_for_ready(child):
    """Wait until a child has begun to read."""
    line = child.stdout.readline()
    assert line == "ready\n", child.communicate()
