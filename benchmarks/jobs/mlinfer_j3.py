"""J3 with mlinfer: a text model is Python code, so two workers are two processes."""

import sys
from pathlib import Path

from mlinfer import Batching, InferencePipeline, Workers
from mlinfer.destinations import ParquetDestination
from mlinfer.hosts import Selected, SklearnHost
from mlinfer.sources import ParquetSource


def main(data: Path, out: Path) -> None:
    InferencePipeline(
        name="j3",
        source=ParquetSource(str(data / "in" / "*.parquet")),
        host=Selected(SklearnHost(str(data / "model.mlinfer")), {"score": "y_proba_True"}),
        destination=ParquetDestination(str(out / "answers")),
        keep=["id"],
        workers=Workers(2, "process"),
        batching=Batching(max_records=8192),  # enough batches for both to be busy until the end
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
