"""J2 with mlinfer: the model sees at most 256 records at once."""

import sys
from pathlib import Path

import pyarrow as pa

from mlinfer import Batching, InferencePipeline
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import Selected, SklearnHost
from mlinfer.sources import JsonLinesSource


def main(data: Path, out: Path) -> None:
    InferencePipeline(
        name="j2",
        source=JsonLinesSource(str(data / "in" / "*.jsonl")),
        host=Selected(SklearnHost(str(data / "model.mlinfer")), {"score": "y_proba_True"}),
        destination=JsonLinesDestination(str(out / "answers" / "part-0.jsonl")),
        keep={"id": pa.int64()},
        batching=Batching(max_records=256),
    ).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
