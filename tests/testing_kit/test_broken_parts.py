"""The kit can see: a part that breaks the contract fails the check of that rule and no other, in words that help."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest

from mlinfer.testing import check_destination, check_host, check_source
from testing_kit import parts

RECORDS = [{"id": f"name-{n}", "x": n / 4} for n in range(7)]
EXAMPLE = {"x": [3.0, 1.0, 2.0, 5.0, 4.0]}


def source(kind):
    def make(folder, records):
        path = folder / "input.jsonl"
        lines = "".join(f"{json.dumps(record)}\n" for record in records.to_pylist())
        path.write_text(lines, encoding="utf-8")
        return kind(str(path))

    return check_source(make, RECORDS)


def destination(kind):
    name = "out.json" if issubclass(kind, parts.DocumentDestination) else "out"
    return check_destination(
        lambda folder: kind(str(folder / name)), documents if name == "out.json" else files
    )


def documents(destination):
    path = parts.Path(destination.path)
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def files(destination):
    folder = parts.Path(destination.path) / "testing" / "main"
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]


def failures(checks):
    """What fails, with the message."""
    found = {}
    for name, check in checks:
        try:
            check()
        except AssertionError as error:
            found[name] = str(error)
    return found


@pytest.mark.parametrize("kind", [parts.LinesSource, parts.QueueSource])
def test_a_sound_source_passes(kind):
    assert failures(source(kind)) == {}


@pytest.mark.parametrize("kind", [parts.Doubler, parts.Summing])
def test_a_sound_host_passes(kind):
    assert failures(check_host(kind, EXAMPLE)) == {}


@pytest.mark.parametrize("kind", [parts.DocumentDestination, parts.FolderDestination])
def test_a_sound_destination_passes(kind):
    assert failures(destination(kind)) == {}


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (parts.SkipsOnResume, "resume", "wanted exactly the records behind position 1 of partition 'all', 6 in all, found 1 missing"),
        (parts.TurnsRoundOnResume, "resume", "wanted exactly the records behind position 1 of partition 'all', in the order in which they came at first, found another one from number 0 on"),
        (parts.LosesTheLast, "everything", "wanted every record that was put there, once, 7 in all, found 1 missing, such as ('name-6', 1.5)"),
        (parts.IdsByBatch, "ids", "wanted the id 'batch 2#0' of a record whenever it comes, found 'batch 1#0' read again behind the first position"),
        (parts.AcknowledgesOnRead, "redelivery", "wanted all that was read and not acknowledged (read 1 batches, acknowledged 0), found that 2 records are gone"),
        (parts.NeverForgets, "redelivery", "wanted nothing more of 7 records once the last position was acknowledged, found that 7 come again"),
    ],
)  # fmt: skip
def test_a_broken_source_is_told_what_is_wrong(kind, check, said):
    found = failures(source(kind))
    assert found.keys() == {check, "guarantee"}
    assert found[check].startswith(f"{check}: {said}")
    assert f"for it fails: {check}; mend that, or claim less" in found["guarantee"]


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (parts.Sorts, "order", "wanted the answers in the order of the records, such as {'y': 10.0} for record 0, found {'y': 2.0}"),
        (parts.SortsManyRows, "order", "wanted the answers in the order of the records in a batch of 20, such as {'y': 6.0} for record 0, found {'y': 2.0}"),
        (parts.KeepsItsMemory, "again", "wanted answers that stay as they are when the model is asked again, such as {'y': 6.0} for record 0, found {'y': 8.0}"),
        (parts.MixesThreads, "shared", "wanted the same answers when another thread asks at line"),
        (parts.DropsARow, "split", "wanted the same answers in batches of [2, 3], 5 of them, found 4"),
        (parts.Mutates, "read_only", "wanted records that stay as they were, found that infer() changed them in place"),
        (parts.Forgets, "memory", "wanted the same answers after restore(), such as"),
    ],
)  # fmt: skip
def test_a_broken_host_is_told_what_is_wrong(kind, check, said):
    found = failures(check_host(kind, EXAMPLE))
    assert found.keys() == {check, "guarantee"}
    assert found[check].startswith(f"{check}: {said}")


class Halting(parts.MixingModel):
    """Whenever another thread asks, the machine stands still for a while: the whole process, with its clock going on."""

    def answers(self, records, x):
        if threading.current_thread() is not threading.main_thread():
            with subprocess.Popen(["/bin/sh", "-c", f"sleep 0.5; kill -CONT {os.getpid()}"]):
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.03)  # whoever was asked first goes on first
        return super().answers(records, x)


class MixesThreadsOnABusyMachine(parts.MixesThreads):
    @contextmanager
    def open(self):
        yield Halting()


def test_threads_that_are_mixed_are_seen_on_a_machine_that_stands_still_meanwhile():
    assert "shared" in failures(check_host(MixesThreadsOnABusyMachine, EXAMPLE))


@pytest.mark.timeout(300)  # hundreds of processes, on a machine that may be busy
@pytest.mark.parametrize(
    ("kind", "check", "said", "earned"),
    [
        (parts.ProgressFirst, "killed", "wanted records and progress (5) of one commit after a kill at line", "at-least-once"),
        (parts.ProgressAmidManyLines, "killed", "wanted records and progress (5) of one commit after a kill at line", "at-least-once"),
        (parts.ErasesAtTheDoor, "anew", "wanted what was committed before, when a run begins anew and ends before its first commit", "at-least-once"),
        (parts.ErasesInAStepOfItsOwn, "killed", "wanted records and progress (7) that belong together after a kill at line", "at-least-once"),
        (parts.KnowsNoPipelines, "strangers", "wanted the records of another pipeline to stay, found 1 gone", "at-least-once"),
        (parts.FencesTooEarly, "overtaken", "wanted each record once, when another run takes over at line", "at-least-once"),
        (parts.InPlace, "killed", "wanted records and progress (3) of one commit after a kill at line", "at-least-once"),
        (parts.ForgetsOldProgress, "progress", "wanted the merged progress", "at-least-once"),
        (parts.NamesByNumber, "redelivery", "wanted one record for each id, the one that came last", "at-least-once"),
    ],
)  # fmt: skip
def test_a_broken_destination_is_told_what_is_wrong(kind, check, said, earned):
    found = failures(destination(kind))
    assert found.keys() == {check, "guarantee"}
    assert found[check].startswith(f"{check}: {said}")
    assert f"from a source that can seek, exactly-once, found that it earns {earned}" in found["guarantee"]


def test_a_commit_that_promises_too_much_is_seen_by_a_kill_and_by_a_look():
    found = failures(destination(parts.LazyCommit))
    assert {"commit", "killed", "guarantee"} <= found.keys()
    assert "wanted all 3 committed records after a kill at line" in found["killed"]


def test_a_run_that_nobody_fences_is_seen_between_two_commits_and_in_the_middle_of_one():
    found = failures(destination(parts.IgnoresTheEpoch))
    assert found.keys() == {"epoch", "overtaken", "guarantee"}
    said = "epoch: wanted FencedError when a run writes while a newer one has taken over"
    assert found["epoch"].startswith(said)


def test_the_guarantee_says_at_how_many_lines_it_was_killed():
    said = dict(destination(parts.DocumentDestination))["guarantee"]()
    found = re.search(
        r"\n  killed at (\d+) of (\d+) lines of its own, and at \d+ of \d+ that these call", said
    )
    assert found, said
    assert found[1] == found[2]
    few = check_destination(
        lambda folder: parts.DocumentDestination(str(folder / "out.json")), documents, kills=8
    )
    assert re.search(r"\n  killed at 6 of \d\d lines of its own, and at 2 of", dict(few)["guarantee"]())
