"""A disk that can be watched, refused and lost: it stands in for the `os` of `mlinfer.durable`.

What the page cache would hold is done for real, below one folder. What a power loss would leave is computed from the log:
contents that were not flushed and names whose folder was not flushed may be lost, torn, or there without what came before
them.
"""
# ruff: noqa: PTH102, PTH105, PTH108, PTH112 - it stands in for os

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlinfer import durable

STEPS = {"open", "write", "fsync", "mkdir", "replace", "link", "rename", "unlink", "ftruncate", "pwrite"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """The process is dead: from now on it changes nothing."""


class Disk:
    """`os`, with a log. `fault(number, step)` is asked before each step: it may raise, or answer "short".

    The log holds tuples: ("write", file, offset, data), ("cut", file, length), ("flush", file), ("names", folder,
    {name: file or None}), ("flush names", folder) and ("promise", anything), which says what a caller was told is safe.
    A file is a number; a folder that was made is named by the number 0.
    """

    def __init__(self, root, fault=None):
        self.root, self.log = Path(root), []
        self.fault = fault or (lambda number, step: None)
        self.steps, self.dead = 0, False
        self._lock = threading.RLock()
        self._files, self._open, self._count = {}, {}, 0

    def __getattr__(self, name):
        return getattr(os, name)

    @contextmanager
    def installed(self):
        """Be the disk that mlinfer sees."""
        durable.os = self
        try:
            yield self
        finally:
            durable.os = os

    def promise(self, what):
        with self._lock:
            self.log.append(("promise", what))

    def kill(self):
        self.dead = True
        raise Killed

    # --- what os does ------------------------------------------------------------------------------------------------

    def open(self, path, flags, mode=0o777):
        with self._step("open"):
            name, new = self._name(path), not os.path.lexists(path)
            descriptor = os.open(path, flags, mode)
            if name is None or os.path.isdir(path):
                self._open[descriptor] = ("folder", name)
            elif not flags & WRITES:
                self._open[descriptor] = (None, None)
            else:
                if new:
                    self._count += 1
                    self._files[name] = self._count
                    self._names(name, self._count)
                self._open[descriptor] = (self._files.get(name), os.fstat(descriptor).st_size)
            return descriptor

    def write(self, descriptor, data):
        with self._step("write") as fault:
            data = bytes(data)
            taken = data[: (len(data) + 1) // 2] if fault == "short" else data
            file, _ = self._open[descriptor]
            offset = os.fstat(
                descriptor
            ).st_size  # all our files are written from their beginning to their end
            written = os.write(descriptor, taken)
            self._note("write", file, offset, taken[:written])
            return written

    def pwrite(self, descriptor, data, offset):
        with self._step("pwrite"):  # the lock's file: whatever it says, it is not needed after a crash
            return os.pwrite(descriptor, data, offset)

    def ftruncate(self, descriptor, length):
        with self._step("ftruncate"):
            os.ftruncate(descriptor, length)
            self._note("cut", self._open[descriptor][0], length)

    def fsync(self, descriptor):
        with self._step("fsync"):
            kind, name = self._open[descriptor]
            if kind == "folder":
                if name is not None:
                    self.log.append(("flush names", name))
            else:
                self._note("flush", kind)

    def close(self, descriptor):
        with self._lock:
            self._open.pop(descriptor, None)
            os.close(descriptor)

    def mkdir(self, path, mode):
        with self._step("mkdir"):
            os.mkdir(path, mode)
            self._names(self._name(path), 0)

    def link(self, source, target):
        with self._step("link"):
            os.link(source, target)
            self._files[self._name(target)] = self._files[self._name(source)]
            self._names(self._name(target), self._files[self._name(source)])

    def unlink(self, path):
        with self._step("unlink"):
            os.unlink(path)
            self._files.pop(self._name(path), None)
            self._names(self._name(path), None)

    def replace(self, source, target):
        with self._step("replace"):
            os.replace(source, target)
            source, target = self._name(source), self._name(target)
            self._files[target] = self._files.pop(source)
            folder = target.rpartition("/")[0]
            self.log.append(
                ("names", folder, {target: self._files[target], source: None})
            )  # one step: no file system does half of it

    rename = replace

    # --- the log -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, step):
        with self._lock:
            if self.dead:
                raise Killed
            self.steps += 1
            yield self.fault(self.steps, step)

    def _name(self, path):
        """The path below the root; "" for the root, None for what is outside."""
        path = Path(path).resolve()
        if path == self.root:
            return ""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else None

    def _names(self, name, file):
        if not name.endswith(".lock"):
            self.log.append(("names", name.rpartition("/")[0], {name: file}))

    def _note(self, what, file, *rest):
        if file is not None and file in self._numbers():
            self.log.append((what, file, *rest))

    def _numbers(self):
        return {number for name, number in self._files.items() if not name.endswith(".lock")}


@dataclass
class Remains:
    """What a power loss after the first so many entries of a log can leave behind."""

    log: list
    flushed: dict = field(default_factory=dict)
    pending: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)
    pending_names: dict = field(default_factory=dict)
    promised: object = None

    def __post_init__(self):
        for entry in self.log:
            self.add(entry)

    def add(self, entry):
        """One more step."""
        what, where, *rest = entry
        if what == "promise":
            self.promised = where
        elif what in {"write", "cut"}:
            self.pending.setdefault(where, []).append((what, *rest))
        elif what == "flush":
            self.flushed[where] = content(self.flushed.get(where, b""), self.pending.pop(where, []))
        elif what == "names":
            self.pending_names.setdefault(where, []).append(rest[0])
        elif what == "flush names":
            for change in self.pending_names.pop(where, []):
                self.names |= change

    def all(self):
        """Nothing is lost: what a killed process leaves."""
        return self._state(lambda changes: changes, lambda changes: changes)

    def none(self):
        """All is lost that was not flushed."""
        return self._state(lambda _: [], lambda _: [])

    def names_only(self):
        """The names are there, the contents are not."""
        return self._state(lambda changes: changes, lambda _: [])

    def contents_only(self):
        """The contents are there, the names are not."""
        return self._state(lambda _: [], lambda changes: changes)

    def some(self, dice):
        """Any of it, in pieces."""
        keep = dice.random()

        def names(changes):
            return [change for change in changes if dice.random() < keep]

        def contents(changes):
            return [torn(change, dice) for change in changes if dice.random() < keep]

        return self._state(names, contents)

    def _state(self, pick_names, pick_contents):
        names = dict(self.names)
        for changes in self.pending_names.values():
            for change in pick_names(changes):
                names |= change
        state = {}
        for name, file in names.items():
            if file is not None:
                picked = pick_contents(self.pending.get(file, []))
                state[name] = None if file == 0 else content(self.flushed.get(file, b""), picked)
        return state


def torn(change, dice):
    """A write of which only the beginning, only the length, or only the end has arrived; or all of it."""
    if change[0] == "cut" or dice.random() < 0.4:
        return change
    _, offset, data = change
    place, how = dice.randrange(len(data) + 1), dice.randrange(3)
    pieces = [data[:place], bytes(len(data)), bytes(place) + data[place:]]
    return ("write", offset, pieces[how])


def content(before, changes):
    """The bytes of a file after some changes."""
    held = bytearray(before)
    for what, *facts in changes:
        if what == "cut":
            held = held[: facts[0]] + bytes(max(0, facts[0] - len(held)))
        else:
            offset, data = facts
            held += bytes(max(0, offset - len(held)))
            held[offset : offset + len(data)] = data
    return bytes(held)


def build(state, folder):
    """Put a state on a real disk. A name in a folder that is lost is lost, too."""
    for name in sorted(state, key=lambda name: name.count("/")):
        path = folder / name
        if not path.parent.is_dir():
            continue
        if state[name] is None:
            path.mkdir()
        else:
            path.write_bytes(state[name])
