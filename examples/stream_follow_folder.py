"""A folder that is followed: every new file is scored, exactly once, and a restart goes on where the last run ended."""

import json
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_wine
from sklearn.ensemble import HistGradientBoostingClassifier

from mlinfer import InferencePipeline
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import JsonLinesSource


def main() -> None:
    wine = load_wine(as_frame=True)
    frame = wine.data.rename(columns=lambda name: name.replace("/", "_"))
    host = SklearnHost(HistGradientBoostingClassifier(random_state=0).fit(frame, wine.target), example=frame)
    Path("inbox").mkdir()
    records = frame.to_dict("records")
    deliver("1.jsonl", records[:100])

    pipeline = InferencePipeline(
        JsonLinesSource("inbox", follow=True),
        host,
        JsonLinesDestination("scores.jsonl"),
        name="wine",
        keep=["proline"],
        require="exactly-once",
    )
    # Without until="idle" it would run until SIGTERM or Ctrl-C.
    print(pipeline.run(until="idle"))  # 100 delivered, 0 rejected, exactly-once
    deliver("2.jsonl", records[100:])
    print(pipeline.run(until="idle"))  # 78 delivered, 0 rejected, exactly-once
    print(len(Path("scores.jsonl").read_text().splitlines()))  # 178


def deliver(name: str, records: list[dict[str, float]]) -> None:
    """A file must appear whole: write it under a name that is passed over, then rename it."""
    scratch = Path("inbox") / f"{name}.tmp"
    scratch.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    scratch.rename(scratch.with_name(name))


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
