"""J2 with Polars as a stream would need it: each batch of 256 lines parsed and written as a small frame."""

import sys
from io import BytesIO
from itertools import islice
from pathlib import Path

import joblib
import polars as pl

NUMBERS = [f"x{i}" for i in range(10)]
SCHEMA = {"id": pl.Int64(), **dict.fromkeys(NUMBERS, pl.Float64()), "text": pl.String()}


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)
    with (
        (data / "in" / "records.jsonl").open("rb") as lines,
        (out / "answers" / "part-0.jsonl").open("wb") as answers,
    ):
        while batch := b"".join(islice(lines, 256)):
            records = pl.read_ndjson(BytesIO(batch), schema=SCHEMA)
            scores = model.predict_proba(records.select(NUMBERS).to_numpy())[:, 1]
            records.select("id", pl.Series("score", scores)).write_ndjson(answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
