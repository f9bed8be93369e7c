"""Compare a contender's output with the expected answers, record by record.

    python benchmarks/check.py DATA OUT

Prints the row count and the checksum (the sum of the scores), or says what is wrong and exits 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

TOLERANCE = 1e-9


def tables(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(folder.glob("**/*.parquet")):
        yield pq.read_table(path)
    for path in sorted(folder.glob("**/*.jsonl")):
        if path.stat().st_size:
            yield pj.read_json(path)


def codes(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """The number at the end of each value, as the generator drew it; -1 for a foreign value."""
    vocabulary = pa.array([f"{name}-value-{i}" for i in range(120)])
    return pc.fill_null(pc.index_in(column.cast(pa.string()), vocabulary), -1).to_numpy()


def check_table(table: pa.Table, expected: dict[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The ids and the sum of scores; raises if a record has another answer than it should."""
    ids = table["id"].to_numpy()
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(expected["score"]):
        msg = "an id that isn't in the input"
        raise ValueError(msg)
    scores = table["score"].to_numpy()
    wrong = ~(np.abs(scores - expected["score"][ids]) <= TOLERANCE)
    for name in expected.keys() - {"score"}:
        wrong |= codes(table[name], name) != expected[name][ids]
    if wrong.any():
        msg = f"{wrong.sum()} wrong answers, the first for id {ids[wrong][0]}"
        raise ValueError(msg)
    return ids, float(scores.sum())


def check(data: Path, out: Path) -> tuple[int, int, float]:
    """Answers, rejects and checksum of an output in which every record has its one right answer."""
    with np.load(data / "expected.npz") as file:
        expected = dict(file)
    total, checksum = len(expected["score"]), 0.0
    seen = np.zeros(total, dtype=np.int64)
    for table in tables(out / "answers"):
        ids, scores = check_table(table, expected)
        seen += np.bincount(ids, minlength=total)
        checksum += scores
    good = ~np.isnan(expected["score"])
    if (seen != good).any():
        msg = f"{(seen < good).sum()} answers missing, {(seen > good).sum()} too many"
        raise ValueError(msg)
    rejects = sum(len(table) for table in tables(out / "rejects"))
    if rejects != total - good.sum():
        msg = f"{rejects} rejects instead of {total - good.sum()}"
        raise ValueError(msg)
    return int(good.sum()), rejects, checksum


if __name__ == "__main__":
    try:
        answers, rejected, sum_of_scores = check(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, KeyError, pa.ArrowException) as error:
        sys.exit(f"wrong output: {error}")
    print(f"{answers} answers, {rejected} rejects, checksum {sum_of_scores:.6f}")
