"""Image files through FilesSource: bytes become a tensor, a file that is no image becomes a reject."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from mlinfer import InferencePipeline, to_arrow
from mlinfer.destinations import MemoryDestination, ParquetDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import FilesSource, Mapped

HEAD = b"P5\n8 8\n16\n"  # PGM: a grey image of 8 x 8, 16 levels


def main() -> None:
    digits = load_digits()
    model = SVC(gamma=0.001).fit(digits.data[:1000], digits.target[:1000])
    Path("digits").mkdir()
    for number, image in enumerate(digits.images[1000:1200]):
        Path(f"digits/{number:04}.pgm").write_bytes(HEAD + image.astype(np.uint8).tobytes())
    Path("digits/0200.pgm").write_bytes(b"not an image")

    rejects = MemoryDestination()
    pipeline = InferencePipeline(
        Mapped(FilesSource("digits"), pixels, reads=["path", "bytes"]),
        SklearnHost(model, example=digits.data[:10]),
        ParquetDestination("answers"),
        name="digits",
        keep=["path"],
        rejects=rejects,
    )
    print(pipeline.run())  # 200 delivered, 1 rejected, at-least-once
    print(rejects.table("rejects")["record_id"].to_pylist())  # ['0200.pgm']
    answers = pq.read_table("answers").sort_by("path")
    print((answers["y_pred"].to_numpy() == digits.target[1000:1200]).mean() > 0.9)  # True


def pixels(files: pa.RecordBatch) -> pa.RecordBatch:
    images = [read(content) for content in files.column("bytes").to_pylist()]
    matrix = np.array(images, np.float64).reshape(len(images), 64)
    return pa.record_batch({"path": files.column("path"), "x": to_arrow(matrix)["x"].combine_chunks()})


def read(content: bytes) -> np.ndarray:
    if not content.startswith(HEAD) or len(content) != len(HEAD) + 64:
        raise OSError(content[:8])
    return np.frombuffer(content, np.uint8, offset=len(HEAD))


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
