"""J2 with Bytewax: its file source and file sink, one step for each batch of 256 lines."""

import sys
from pathlib import Path

import bytewax.operators as op
import joblib
import numpy as np
import orjson
from bytewax.connectors.files import FileSink, FileSource
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

NUMBERS = [f"x{i}" for i in range(10)]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)

    def score(lines: list[str]) -> list[tuple[str, str]]:
        records = [orjson.loads(line) for line in lines]
        x = np.array([[record[name] for name in NUMBERS] for record in records])
        scores = model.predict_proba(x)[:, 1].tolist()
        return [
            ("", orjson.dumps({"id": record["id"], "score": score}).decode())
            for record, score in zip(records, scores, strict=True)
        ]

    flow = Dataflow("j2")
    lines = op.input("read", flow, FileSource(data / "in" / "records.jsonl", batch_size=256))
    answers = op.flat_map_batch("score", lines, score)
    op.output("write", answers, FileSink(out / "answers" / "part-0.jsonl"))
    run_main(flow)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
