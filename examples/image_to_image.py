"""Pictures in, pictures out: an ONNX model finds edges in photographs, the answers are PNG in a table of SQLite."""

import io
import sqlite3
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_images

from mlinfer import InferencePipeline
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import Chain, OnnxHost, Pictures, Png, Selected
from mlinfer.sources import FilesSource


def main() -> None:
    Path("photos").mkdir()
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        Image.fromarray(photo).save(f"photos/{name}.jpg")
    write_model("edges.onnx")

    host = Chain(
        Selected(Pictures((320, 213), scale=255, layout="CHW"), {"pixels": "x"}),
        Selected(OnnxHost("edges.onnx"), {"x": "edges"}),
        Png((320, 213), mode="L", scale=255),
    )
    destination = SqlDestination("sqlite:///edges.db", table="edges")
    pipeline = InferencePipeline(FilesSource("photos"), host, destination, name="edges", keep=["path"])
    print(pipeline.run())  # 2 delivered, 0 rejected, exactly-once
    with sqlite3.connect("edges.db") as database:
        rows = database.execute("SELECT path, png FROM edges ORDER BY path").fetchall()
    (path, png), _ = rows
    picture = Image.open(io.BytesIO(png))
    print(path, picture.format, picture.size)  # china.jpg PNG (320, 213)
    print(pipeline.infer({"bytes": [Path("photos/china.jpg").read_bytes()]})["png"][0].as_py()[1:4])  # b'PNG'


def write_model(path: str) -> None:
    """One convolution: how much a pixel differs from those around it, over all colours."""
    weights = -np.ones((1, 3, 3, 3), np.float32) / 3
    weights[:, :, 1, 1] = 8 / 3
    graph = helper.make_graph(
        [helper.make_node("Conv", ["pixels", "w"], ["edges"], pads=[1, 1, 1, 1])], "edges",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 213, 320])],
        [helper.make_tensor_value_info("edges", TensorProto.FLOAT, ["n", 1, 213, 320])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
