"""J1 with Daft: a batch function over 20 columns, its own reader and writer."""

import sys
from pathlib import Path

import daft
import joblib
import numpy as np

FEATURES = [f"f{i}" for i in range(20)]
KEPT = ["id", *(f"s{i}" for i in range(5))]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")

    @daft.func.batch(return_dtype=daft.DataType.float64(), use_process=False)
    def score(*columns: daft.Series) -> np.ndarray:
        x = np.column_stack([column.to_arrow().to_numpy() for column in columns])
        return model.predict_proba(x)[:, 1]

    records = daft.read_parquet(str(data / "in" / "*.parquet"))
    answers = records.with_column("score", score(*(records[name] for name in FEATURES)))
    answers.select(*KEPT, "score").write_parquet(str(out / "answers"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
