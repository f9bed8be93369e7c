"""Put the model that data.py trained into mlinfer's own format. Not part of any measured time.

python benchmarks/jobs/package.py DATA
"""

import sys
from pathlib import Path

import joblib
import pyarrow as pa

from mlinfer.lifecycle import package

FEATURES = {"j1": [f"f{i}" for i in range(20)], "j2": [f"x{i}" for i in range(10)]}


def inputs(data: Path) -> pa.Schema:
    """A value is required in every field."""
    kind = data.name.split("-")[0]
    fields = (
        [(name, pa.float64()) for name in FEATURES[kind]] if kind in FEATURES else [("text", pa.string())]
    )
    return pa.schema([pa.field(name, dtype, nullable=False) for name, dtype in fields])


def main(data: Path) -> None:
    target = data / "model.mlinfer"
    if not target.exists():
        package(joblib.load(data / "model.joblib"), target, inputs=inputs(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
