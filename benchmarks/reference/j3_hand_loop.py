"""J3 by hand: one process, one file after the other."""

import sys
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.parquet as pq


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)
    for path in sorted((data / "in").glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        scores = model.predict_proba(table["text"].to_pylist())[:, 1]
        answers = table.select(["id"]).append_column("score", pa.array(scores))
        pq.write_table(answers, out / "answers" / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
