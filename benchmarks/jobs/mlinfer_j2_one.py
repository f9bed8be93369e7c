"""J2 with mlinfer, one record a batch, with a light model: one numpy product."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlinfer import Batching, InferencePipeline
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource

NUMBERS = [f"x{i}" for i in range(10)]


def main(data: Path, out: Path) -> None:
    model = np.load(data / "light.npz")
    weights, bias = model["weights"], float(model["bias"])

    def score(**columns: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-(weights @ np.array(list(columns.values())) + bias)))

    InferencePipeline(
        name="j2-one",
        source=JsonLinesSource(str(data / "in" / "*.jsonl")),
        host=FunctionHost(score, dict.fromkeys(NUMBERS, "float64"), {"score": "float64"}, takes="numpy"),
        destination=JsonLinesDestination(str(out / "answers" / "part-0.jsonl")),
        keep={"id": pa.int64()},
        batching=Batching(max_records=1),
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
