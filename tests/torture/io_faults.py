"""The n-th thing that a run asks of the disk fails, for every n until a run is clean."""

import errno
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from mlinfer import MlinferError
from torture.disk import Disk
from torture.figures import Figures
from torture.power_loss import KINDS, RECORDS, Numbers, Watch, expected, outcome, pipeline

FAULTS = ("EIO", "ENOSPC", "EINTR", "short")
FLOORS = {"parquet": 64, "jsonl": 140, "csv": 140, "checkpoint": 180}
"""So many failed operations at least, a quarter of them in each way: a little fewer than a run asks for now."""


@dataclass
class Faults:
    """`failed` counts the runs by fault. `unnamed`: the error does not name a file and say what to do. `torn`: something
    half written had a final name. `wrong`: the next run did not complete the output exactly."""

    failed: Counter = field(default_factory=Counter)
    unnamed: list = field(default_factory=list)
    torn: list = field(default_factory=list)
    wrong: list = field(default_factory=list)

    def __bool__(self):
        return not (self.unnamed or self.torn or self.wrong)

    def __str__(self):
        counts = ", ".join(f"{fault} {count}" for fault, count in self.failed.items())
        return (
            f"n-th I/O operation fails: {sum(self.failed.values())} runs ({counts}): {len(self.unnamed)} unnamed errors, "
            f"{len(self.torn)} torn files, {len(self.wrong)} wrong outcomes"
        )


def run(kinds=KINDS, faults=FAULTS, every=1):
    """Fail the first operation, the next one (or every k-th), and so on until there is none left to fail."""
    found = Faults()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    for kind in kinds:
        for fault in faults:
            number = 1
            while _one(kind, fault, number, shared, found=found):
                number += every
    return found


def one_by_one(kind, seed, operations):
    """Every operation of a run into this kind of output fails once in each way, until there is none left to fail."""
    del seed, operations  # it is always all of them
    found = run([kind])
    assert found, f"{found}\n{found.unnamed[:3]}\n{found.torn[:3]}\n{found.wrong[:3]}"
    return Figures(sum(found.failed.values()), places=found.failed)


def _one(kind, fault, number, shared, *, found):
    """Whether there was an n-th operation."""
    with tempfile.TemporaryDirectory(dir=shared) as place:
        folder, case = Path(place).resolve(), (kind, fault, number)
        pipeline(kind, folder, Numbers(RECORDS // 2)).run()
        hit = []

        def refuse(at, step):
            if at != number:
                return None
            hit.append(step)
            if fault == "short":
                return "short"
            code = getattr(errno, fault)
            raise OSError(code, os.strerror(code))

        disk, watch = Disk(folder, refuse), Watch()
        with disk.installed():
            error = _error(lambda: pipeline(kind, folder, Numbers(RECORDS, watch), watch).run())
        if not hit:
            return False
        found.failed[fault] += 1
        if fault in {"short", "EINTR"} and error is None:  # tried again, and the rest with it
            found.wrong += [] if outcome(kind, folder) == expected() else [case]
        elif not (isinstance(error, MlinferError) and str(folder) in str(error) and _advises(str(error))):
            found.unnamed.append((case, hit, repr(error)))
        _look(kind, folder, case, found)
        again = _error(lambda: pipeline(kind, folder, Numbers(RECORDS)).run())
        if again is not None or outcome(kind, folder) != expected():
            found.wrong.append((case, hit, repr(again)))
        return True


def _error(act):
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
        return error
    return None


def _advises(text):
    return any(advice in text for advice in ("run the pipeline again", "then run again", "allow this user"))


def _look(kind, folder, case, found):
    """Whatever has a final name is whole: parts and small files can be read."""
    try:
        if kind == "parquet":
            for path in (folder / "new" / "out").glob("*.parquet"):
                pq.read_table(path)
        else:
            stored = outcome(kind, folder)
            if kind == "checkpoint" and not set(stored) <= set(expected()):
                found.torn.append((case, stored))
    except (ValueError, KeyError, OSError) as error:
        if kind in {
            "parquet",
            "checkpoint",
        }:  # a text file may end in what was not committed: the next run cuts it
            found.torn.append((case, repr(error)))
