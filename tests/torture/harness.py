"""One pipeline under torture: feed, start, kill, start again; at the end one clean run, and the oracle."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from postgres import PostgresServer
from torture.oracle import answers, judge
from torture.records import END, PARTITIONS, csv_line, fate, line

TESTS = Path(__file__).parents[1]
PATIENCE = 60
FENCED = 5
WITH_DATABASE = "CREATE TABLE scores (n bigserial, id text, x float8, y float8)"  # n: the order of storage
POINTS = (
    "source.open source.read.before source.read.after host.load.before host.load.after host.infer.before "
    "host.infer.after dest.write.before dest.write.after dest.write.partial rejects.write.before rejects.write.after "
    "dest.commit.before dest.commit.after drain.begin drain.end"
).split()
BY_REPLACING = ["progress.write.tmp", "progress.fsync", "progress.rename"]
MORE_POINTS = {
    "sqlite": ["dest.begin"],
    "postgres": ["dest.begin"],
    "parquet": ["dest.begin", "dest.publish"],
    "jsonl": BY_REPLACING,
    "csv": BY_REPLACING,
    "followed-jsonl": ["dest.begin", "source.decode"],
    "followed-csv": ["dest.begin", "source.decode"],
    "queue": ["dest.begin", "source.acknowledge.before", "source.acknowledge.after"],
}
HITS = {
    "host.load.before": 1,
    "host.load.after": 1,
    "drain.begin": 1,
    "drain.end": 1,
    "source.open": len(PARTITIONS),
}
MOST_HITS = 24
FOLLOWED_HITS = {"source.read.before": 28, "source.read.after": 28, "source.decode": 28}
FOLLOWED_MOST_HITS = 10
FOLLOWED_WAITING = 160
"""Records that wait for a run that follows files: each is read to its end once, and little that is fed meanwhile is seen."""
TELLING = {"dest.commit.before", "dest.commit.after", "dest.write.partial", "rejects.write.after"}
"""Where what is stored in the wrong order is seen soonest: a lane that is cut short begins with these places."""
EXACT_REJECTS = {"sqlite", "swaps", "followed-jsonl", "followed-csv", "postgres", "queue"}


def points(kind):
    """Every place where a run into this kind of destination can be killed; for `swaps` where models change."""
    if kind == "swaps":
        return ["host.swap.before", "host.swap.after"]
    return [*POINTS, *MORE_POINTS.get(kind, [])]


@contextmanager
def tortured(kind, seed):
    """A pipeline to torture, in a folder of its own, and with a server of its own where it needs one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        torture = Torture(folder, kind, seed)
        if kind == "postgres":
            torture.server = stack.enter_context(PostgresServer.running())
            url = torture.server.database()
            with psycopg.connect(url) as connection:
                connection.execute(WITH_DATABASE)
            (folder / "url").write_text(url)
        yield torture


@dataclass
class Torture:
    """One pipeline, its growing input and its output, in a folder.

    `kills` counts them by place, `between` those that fell after this run's first commit and with more to come.
    `held` are the ends of lines that stand half in a followed file.
    """

    folder: Path
    kind: str
    seed: int
    given: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    kills: Counter = field(default_factory=Counter)
    between: int = 0
    server: PostgresServer | None = None

    def __post_init__(self):
        self.dice = random.Random(self.seed)
        self.input = self.folder / "input"
        self.input.mkdir(parents=True)
        if "queue" not in self.kind:
            for partition in PARTITIONS:
                (self.input / partition).write_text("id,x\n" if self.kind == "followed-csv" else "")

    # --- input -------------------------------------------------------------------------------------------------------

    def feed(self, records):
        """Append records to partitions chosen by lot, or put messages into the queue."""
        if "queue" in self.kind:
            for n in self._numbers("0", records):
                scratch = self.input / f"{n:08}.new"
                scratch.write_text(line("0", n), "utf-8")
                scratch.rename(scratch.with_suffix(".json"))
            return
        shares = Counter(self.dice.choices(PARTITIONS, k=records))
        for partition, share in shares.items():
            spelled = csv_line if self.kind == "followed-csv" else line
            text = "".join(spelled(partition, n) + "\n" for n in self._numbers(partition, share))
            self._append(partition, text, torn="followed" in self.kind)

    def _append(self, partition, text, *, torn=False):
        """Append to a file; a torn text lacks the end of its last line, which comes with the next one."""
        text = self.held.pop(partition, "") + text
        if torn:
            whole = text.rfind("\n", 0, -1) + 1
            cut = self.dice.randint(whole, len(text) - 1)
            text, self.held[partition] = text[:cut], text[cut:]
        with (self.input / partition).open("a", encoding="utf-8") as file:
            file.write(text)

    def _numbers(self, partition, records):
        start = self.given.get(partition, 0)
        self.given[partition] = start + records
        return range(start, start + records)

    def feed_a_little(self):
        """What a busy source brings in some milliseconds."""
        self.feed(self.dice.randint(1, 12))
        time.sleep(0.004)

    @contextmanager
    def no_more(self):
        """While the block runs, the input has an end."""
        for partition in [*self.held]:
            self._append(partition, "")
        (self.input / END).touch()
        yield
        (self.input / END).unlink()

    # --- children ----------------------------------------------------------------------------------------------------

    def start(self, failpoints="", *, rows=5, pause=0.001):
        """A child at work."""
        return self._child(["torture.job", str(self.folder), self.kind, str(rows), str(pause)], failpoints)

    def start_command(self, pause):
        """The same, as the command line runs it."""
        return self._child(["torture.command", str(self.folder), self.kind, str(pause)])

    def _child(self, module, failpoints=""):
        path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "MLINFER_TEST": "1",
            "MLINFER_FAILPOINTS": failpoints,
            "PYTHONPATH": path,
            "TORTURE_CHILD": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", *module],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
        )

    def end(self, child, codes=(0,)):
        """Wait for a child: exit code, output and complaints. Another end than these is an error."""
        try:
            said, complained = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            complained = f"nothing for {PATIENCE} s; {child.communicate()[1]}"
            child.returncode = None
        if child.returncode not in codes:
            msg = f"{self.kind}, seed {self.seed}: the child ended with {child.returncode}: {complained}"
            raise AssertionError(msg)
        return child.returncode, said, complained

    def end_with_input(self, child):
        """Let a child that is at work read the rest, and end by itself."""
        with self.no_more():
            return self.end(child)

    def clean_run(self):
        """A child from its start to the input's end: the numbers of delivered and rejected records."""
        with self.no_more():
            _, said, _ = self.end(self.start(rows=200, pause=0))
        return tuple(map(int, said.splitlines()[-1].split()))

    # --- rounds ------------------------------------------------------------------------------------------------------

    def kill_at(self, point, hit=1):
        """New input, and a run that dies at the n-th time it comes to a place, while more comes in. Says whether it did."""
        before = self._begin()
        child = self.start(f"{point}=kill@{hit}")
        # to the first hits every run comes, however slow the machine is; what comes late or never is tried again nearer to the start
        longest = PATIENCE / 2 if hit <= 3 else 1.5 if "followed" in self.kind else 3.0
        after = 0.05 + self.dice.random() * 0.1 if point.startswith("drain.") else longest
        self.feed_until_dead(child, after, signal.SIGTERM)
        return self._count(child, point, before)

    def kill_at_any_time(self, longest):
        """The same, at a moment that no name was given to: within so many seconds of its first read."""
        before = self._begin()
        child = self.start()
        self.feed_until_dead(child, self.dice.random() * longest, signal.SIGKILL)
        return self._count(child, "any time", before)

    def seconds_to_an_answer(self):
        """How long a run works until its first answers are stored; it is stopped behind them."""
        before = self._begin()
        child = self.start()
        child.stdout.readline()
        started = time.monotonic()
        while self.stored() == before and child.poll() is None:
            self.feed_a_little()
        needed = time.monotonic() - started
        child.send_signal(signal.SIGTERM)
        self.end(child)
        return needed

    def kill(self, times):
        """Kill at every place in turn; a hit that never comes is tried again nearer to the start."""
        places = points(self.kind)
        self.dice.shuffle(places)
        places.sort(key=lambda place: place not in TELLING)
        for n in range(times):
            point = places[n % len(places)]
            hit = self.dice.randint(1, self._most_hits(point))
            while not self.kill_at(point, hit):
                if hit == 1:
                    msg = f"{self.kind}, seed {self.seed}: no run came to {point}"
                    raise AssertionError(msg)
                hit //= 2

    def _most_hits(self, point):
        """How often a run comes to a place, nearly always."""
        if "followed" not in self.kind:
            return HITS.get(point, MOST_HITS)
        return FOLLOWED_HITS.get(point) or HITS.get(point, FOLLOWED_MOST_HITS)

    def feed_until_dead(self, child, seconds, number):
        """Feed a child from its first read on; after so many seconds it gets a signal."""
        child.stdout.readline()  # it is ready, or dead
        shot = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < shot:
            self.feed_a_little()
        if child.poll() is None:
            child.send_signal(number)

    def finish(self):
        """A clean run to the end, and what the oracle says; a further run must find nothing to do."""
        self.clean_run()
        again = self.clean_run()
        assert again == (0, 0), f"{self.kind}, seed {self.seed}: a second run found {again}"
        return self.verdict()

    def verdict(self, **options):
        """What the oracle says now."""
        return judge(
            self.folder, self.kind, self.given, **{"rejects_once": self.kind in EXACT_REJECTS, **options}
        )

    def _begin(self):
        self.feed(FOLLOWED_WAITING if "followed" in self.kind else 40)
        return self.stored()

    def _count(self, child, point, before):
        code, *_ = self.end(child, {0, -signal.SIGKILL})
        if not code:
            return False
        self.kills[point] += 1
        self.between += before < self.stored() < self.due()
        return True

    def stored(self):
        """The number of answers that were committed."""
        return len(answers(self.folder, self.kind, committed=True))

    def due(self):
        """The number of answers that the input asks for."""
        return sum(fate(n) == "answered" for count in self.given.values() for n in range(count))
