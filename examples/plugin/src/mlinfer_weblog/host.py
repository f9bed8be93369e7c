"""How odd a text is: the bits per character that it takes to tell it to somebody who knows the usual ones."""

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mlinfer import ConfigError, Host, Signature, located

EDGE = b"\n"  # before the first character and behind the last


@dataclass(frozen=True)
class Surprise(Host):
    """Scores `path` by a bigram model with add-one smoothing, fitted on a file of usual paths, one a line."""

    usual: str
    shared = True  # a model does not change while it answers, so threads may share it

    @contextmanager
    def open(self):
        try:
            text = located(self.usual).read_bytes()
        except OSError as error:
            msg = f"usual: wanted a file of usual paths, one a line, found {error.strerror} at {self.usual}"
            raise ConfigError(msg) from error
        yield SurpriseModel(EDGE + text.strip() + EDGE)


class SurpriseModel:
    def __init__(self, text):
        counts = np.ones((256, 256))
        codes = np.frombuffer(text, np.uint8)
        np.add.at(counts, (codes[:-1], codes[1:]), 1)
        self.bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
        self.signature = Signature(
            pa.schema([pa.field("path", pa.string(), nullable=False)]),  # a value is required
            pa.schema([pa.field("surprise", pa.float64(), nullable=False)]),
            model_id="surprise",
            version="1",
            digest=hashlib.sha256(text).hexdigest(),  # another model: stored progress no longer belongs to it
        )

    def infer(self, records):
        answers = [self.surprise(path.encode()) for path in records.column("path").to_pylist()]
        return pa.record_batch([pa.array(answers, pa.float64())], schema=self.signature.outputs)

    def surprise(self, path):
        codes = np.frombuffer(EDGE + path + EDGE, np.uint8)
        return float(self.bits[codes[:-1], codes[1:]].mean())
