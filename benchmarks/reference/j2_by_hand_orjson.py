"""J2 by hand: lines in batches of 256 through orjson and a matrix."""

import sys
from itertools import islice
from pathlib import Path

import joblib
import numpy as np
import orjson

NUMBERS = [f"x{i}" for i in range(10)]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)
    with (
        (data / "in" / "records.jsonl").open("rb") as lines,
        (out / "answers" / "part-0.jsonl").open("wb") as answers,
    ):
        while batch := list(islice(lines, 256)):
            records = [orjson.loads(line) for line in batch]
            x = np.array([[record[name] for name in NUMBERS] for record in records])
            scores = model.predict_proba(x)[:, 1].tolist()
            answers.write(
                b"".join(
                    orjson.dumps({"id": record["id"], "score": score}, option=orjson.OPT_APPEND_NEWLINE)
                    for record, score in zip(records, scores, strict=True)
                )
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
