"""Put the model that data.py trained into mlinfer's own format. Not part of any measured time.

python benchmarks/jobs/package.py DATA
"""

import sys
from pathlib import Path

import joblib
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

import mlinfer

INPUTS = {"j1": [f"f{i}" for i in range(20)], "j2": [f"x{i}" for i in range(10)], "j3": ["text"]}


def example(data: Path) -> pa.Table:
    """The first records, with the columns that the model was trained on."""
    path = min((data / "in").iterdir())
    columns = INPUTS[data.name.split("-")[0]]
    if path.suffix == ".parquet":
        table = next(pq.ParquetFile(path).iter_batches(32, columns=columns))
        return pa.Table.from_batches([table])
    return pj.read_json(path).slice(0, 32).select(columns)


def main(data: Path) -> None:
    target = data / "model.mlinfer"
    if not target.exists():
        mlinfer.save(
            joblib.load(data / "model.joblib"),
            target,
            example=example(data),
            method="predict_proba",
            expand=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
