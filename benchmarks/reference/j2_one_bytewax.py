"""J2, one record at a time, with Bytewax; a plain sink, for its file sink flushes after each batch."""

import math
import sys
from pathlib import Path
from typing import BinaryIO

import bytewax.operators as op
import numpy as np
import orjson
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

NUMBERS = [f"x{i}" for i in range(10)]


class PlainPartition(StatelessSinkPartition[bytes]):
    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def write_batch(self, items: list[bytes]) -> None:
        self.file.writelines(items)


class PlainSink(DynamicSink[bytes]):
    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def build(self, step_id: str, worker_index: int, worker_count: int) -> PlainPartition:  # noqa: ARG002
        return PlainPartition(self.file)


def main(data: Path, out: Path) -> None:
    model = np.load(data / "light.npz")
    weights, bias = model["weights"], float(model["bias"])
    (out / "answers").mkdir(parents=True)

    def score(line: str) -> bytes:
        record = orjson.loads(line)
        z = float(np.array([record[name] for name in NUMBERS]) @ weights) + bias
        answer = {"id": record["id"], "score": 1.0 / (1.0 + math.exp(-z))}
        return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)

    flow = Dataflow("j2_one")
    lines = op.input("read", flow, FileSource(data / "in" / "records.jsonl", batch_size=1))
    with (out / "answers" / "part-0.jsonl").open("wb") as file:
        op.output("write", op.map("score", lines, score), PlainSink(file))
        run_main(flow)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
