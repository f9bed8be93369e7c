"""J1 with mlinfer; the same pipeline answers data with and without bad records."""

import sys
from pathlib import Path

from mlinfer import InferencePipeline
from mlinfer.destinations import ParquetDestination
from mlinfer.hosts import Selected, SklearnHost
from mlinfer.sources import ParquetSource


def main(data: Path, out: Path, how: str = "auto") -> None:
    InferencePipeline(
        name="j1",
        source=ParquetSource(str(data / "in" / "*.parquet")),
        host=Selected(SklearnHost(str(data / "model.mlinfer"), compile=how), {"score": "y_proba_True"}),
        destination=ParquetDestination(str(out / "answers")),
        rejects=ParquetDestination(str(out / "rejects")),
        keep=["id", *(f"s{i}" for i in range(5))],
        workers=2,
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
