"""J2, one record at a time, by hand, with a light model: one numpy product."""

import math
import sys
from pathlib import Path

import numpy as np
import orjson

NUMBERS = [f"x{i}" for i in range(10)]


def main(data: Path, out: Path) -> None:
    model = np.load(data / "light.npz")
    weights, bias = model["weights"], float(model["bias"])
    (out / "answers").mkdir(parents=True)
    with (
        (data / "in" / "records.jsonl").open("rb") as lines,
        (out / "answers" / "part-0.jsonl").open("wb") as answers,
    ):
        for line in lines:
            record = orjson.loads(line)
            z = float(np.array([record[name] for name in NUMBERS]) @ weights) + bias
            answer = {"id": record["id"], "score": 1.0 / (1.0 + math.exp(-z))}
            answers.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
