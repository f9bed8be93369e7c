"""J1 with Polars' streaming engine: scan, answer each piece, sink."""

import sys
from pathlib import Path

import joblib
import polars as pl

FEATURES = [f"f{i}" for i in range(20)]
KEPT = ["id", *(f"s{i}" for i in range(5))]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")

    def score(frame: pl.DataFrame) -> pl.DataFrame:
        x = frame.select(FEATURES).to_numpy()
        return frame.select(KEPT).with_columns(pl.Series("score", model.predict_proba(x)[:, 1]))

    records = pl.scan_parquet(data / "in" / "*.parquet")
    schema = records.collect_schema()
    answers = {name: schema[name] for name in KEPT} | {"score": pl.Float64()}
    scored = records.select(KEPT + FEATURES).map_batches(score, schema=answers, streamable=True)
    scored.sink_parquet(out / "answers" / "part-0.parquet", mkdir=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
