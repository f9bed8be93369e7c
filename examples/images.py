"""A folder of PNG files into labels in Parquet: the package says how a picture becomes numbers."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination, ParquetDestination
from mlinfer.hosts import Pictures, SklearnHost
from mlinfer.sources import FilesSource


def main() -> None:
    digits = load_digits()
    Path("digits").mkdir()
    for number, image in enumerate(digits.images):  # 16 levels of grey
        Image.fromarray((image * 15).astype(np.uint8)).save(f"digits/{number:04}.png")
    files = sorted(Path("digits").iterdir())

    pictures = Pictures((8, 8), mode="L", scale=255)  # 8 x 8, grey, from 0 to 1
    known = pictures.matrix([file.read_bytes() for file in files[:1500]])
    model = LogisticRegression(max_iter=1000).fit(known, digits.target[:1500])
    mlinfer.save(model, "digits.mlinfer", method=("predict", "predict_proba"), pictures=pictures)

    for file in files[:1500]:
        file.unlink()
    Path("digits/1600.png").write_bytes(b"not a picture")
    rejects = MemoryDestination()
    pipeline = InferencePipeline(
        FilesSource("digits"),
        SklearnHost("digits.mlinfer"),
        ParquetDestination("answers"),
        name="digits",
        keep=["path"],
        rejects=rejects,
    )
    print(pipeline.run())  # 296 delivered, 1 rejected, at-least-once
    print(rejects.table("rejects")["kind"].to_pylist())  # ['no_picture']
    answers = pq.read_table("answers").sort_by("path")
    print(answers.column_names)  # ['path', 'y_pred', 'y_proba']
    print(np.mean(answers["y_pred"].to_numpy() == np.delete(digits.target[1500:], 100)) > 0.9)  # True
    print(pipeline.infer({"bytes": [files[1501].read_bytes()]})["y_pred"][0])  # 7


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
