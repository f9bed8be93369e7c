"""J2 with Polars: its own reader and writer for the whole file, the model in between on 256 records at once."""

import sys
from pathlib import Path

import joblib
import numpy as np
import polars as pl

NUMBERS = [f"x{i}" for i in range(10)]
SCHEMA = {"id": pl.Int64(), **dict.fromkeys(NUMBERS, pl.Float64()), "text": pl.String()}


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)

    def score(frame: pl.DataFrame) -> pl.DataFrame:
        x = frame.select(NUMBERS).to_numpy()
        scores = [model.predict_proba(x[i : i + 256])[:, 1] for i in range(0, len(x), 256)]
        return frame.select("id", pl.Series("score", np.concatenate(scores)))

    records = pl.scan_ndjson(data / "in" / "records.jsonl", schema=SCHEMA)
    answers = {"id": pl.Int64(), "score": pl.Float64()}
    scored = records.select("id", *NUMBERS).map_batches(score, schema=answers, streamable=True)
    scored.sink_ndjson(out / "answers" / "part-0.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
