"""What worker processes of tests import: little, or each would need seconds of a processor before it answers."""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Signature
from mlinfer.hosts import FunctionHost


def nothing():
    """A source that nobody reads."""
    yield from ()


def who(x):
    """Which process answers."""
    return {"y": x + 1, "pid": np.full(len(x), os.getpid())}


@dataclass(frozen=True)
class Loads:
    """A host that does what a file says when it is loaded."""

    path: Path

    def open(self):
        todo = self.path.read_text()
        if todo == "die":
            os._exit(3)
        if todo == "refuse":
            raise ConfigError("this model is not well")
        outputs = {"y": pa.float64(), "pid": pa.int64()}
        return FunctionHost(who, {"x": pa.float64()}, outputs, takes="numpy", version=todo).open()


class Remembering:
    """A host whose model has a memory."""

    def open(self):
        return self.opened()

    @contextmanager
    def opened(self):
        yield Memory()


class Memory:
    signature = Signature(
        pa.schema([("x", pa.float64())]), pa.schema([("y", pa.float64())]), "memory", "1", "1"
    )

    def infer(self, records):
        raise AssertionError

    def snapshot(self):
        return b""

    def restore(self, state):
        pass
