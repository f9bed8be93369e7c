"""J1 with bad records, with Polars: complete records are answered, the others go to a file of their own."""

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
    holed = pl.any_horizontal(pl.col(FEATURES).is_null())
    good = records.select(KEPT + FEATURES).filter(~holed)
    pl.collect_all(
        [
            good.map_batches(score, schema=answers, streamable=True).sink_parquet(
                out / "answers" / "part-0.parquet", mkdir=True, lazy=True
            ),
            records.filter(holed).sink_parquet(out / "rejects" / "part-0.parquet", mkdir=True, lazy=True),
        ]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
