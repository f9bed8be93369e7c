"""J1 the way it is first written: a file is read, answered and written, then the next one."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = [f"f{i}" for i in range(20)]
KEPT = ["id", *(f"s{i}" for i in range(5))]


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    (out / "answers").mkdir(parents=True)
    (out / "rejects").mkdir()
    for path in sorted((data / "in").glob("*.parquet")):
        table = pq.read_table(path)
        x = np.column_stack([table[name].to_numpy() for name in FEATURES])
        bad = np.isnan(x).any(axis=1)
        if bad.any():
            pq.write_table(table.filter(pa.array(bad)), out / "rejects" / path.name)
            table, x = table.filter(pa.array(~bad)), x[~bad]
        answers = table.select(KEPT).append_column("score", pa.array(model.predict_proba(x)[:, 1]))
        pq.write_table(answers, out / "answers" / path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
