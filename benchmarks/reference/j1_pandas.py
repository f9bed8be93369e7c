"""J1 with pandas: everything in one frame."""

import sys
from pathlib import Path

import joblib
import pandas as pd

FEATURES = [f"f{i}" for i in range(20)]
KEPT = ["id", *(f"s{i}" for i in range(5))]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)
    frame = pd.concat([pd.read_parquet(path) for path in sorted((data / "in").glob("*.parquet"))])
    # The model was fitted on a bare matrix; a frame would be answered with a warning.
    frame["score"] = model.predict_proba(frame[FEATURES].to_numpy())[:, 1]
    frame[[*KEPT, "score"]].to_parquet(out / "answers" / "part-0.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
