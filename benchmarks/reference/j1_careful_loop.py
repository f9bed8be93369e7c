"""J1 by hand, with care: only the needed columns, dictionary strings, reader and writer threads."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FEATURES = [f"f{i}" for i in range(20)]
STRINGS = [f"s{i}" for i in range(5)]
KEPT = ["id", *STRINGS]


def read(files: list[Path], batches: Queue) -> None:
    try:
        for path in files:
            file = pq.ParquetFile(path, read_dictionary=STRINGS)
            for batch in file.iter_batches(50_000, columns=KEPT + FEATURES):
                batches.put(batch)
    finally:
        batches.put(None)


def write(folder: Path, batches: Queue) -> None:
    """Write until None comes; after an error go on emptying the queue, so that nobody waits for ever."""
    writer = None
    folder.mkdir(parents=True)
    try:
        while (batch := batches.get()) is not None:
            writer = writer or pq.ParquetWriter(folder / "part-0.parquet", batch.schema)
            writer.write_batch(batch)
    except BaseException:
        while batches.get() is not None:
            pass
        raise
    finally:
        if writer:
            writer.close()


def absent(batch: pa.RecordBatch) -> np.ndarray | None:
    """Which records lack a feature; None if all are complete, which the null counts tell at no cost."""
    holed = [batch[name] for name in FEATURES if batch[name].null_count]
    return (
        np.logical_or.reduce([pc.is_null(column).to_numpy(zero_copy_only=False) for column in holed])
        if holed
        else None
    )


def score(batch: pa.RecordBatch, model: object) -> pa.RecordBatch:
    x = np.empty((len(batch), len(FEATURES)), order="F")
    for i, name in enumerate(FEATURES):
        x[:, i] = batch[name].to_numpy()
    return batch.select(KEPT).append_column("score", pa.array(model.predict_proba(x)[:, 1]))


def main(data: Path, out: Path) -> None:
    model = joblib.load(data / "model.joblib")
    read_ahead, answers, rejects = Queue(4), Queue(4), Queue(4)
    with ThreadPoolExecutor(3) as pool:
        threads = [
            pool.submit(read, sorted((data / "in").glob("*.parquet")), read_ahead),
            pool.submit(write, out / "answers", answers),
            pool.submit(write, out / "rejects", rejects),
        ]
        try:
            while (batch := read_ahead.get()) is not None:
                if (bad := absent(batch)) is not None:
                    rejects.put(batch.filter(pa.array(bad)))
                    batch = batch.filter(pa.array(~bad))
                answers.put(score(batch, model))
        finally:
            answers.put(None)
            rejects.put(None)
        for thread in threads:
            thread.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
