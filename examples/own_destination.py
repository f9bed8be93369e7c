"""A destination of your own: a folder with a file per record, which a record delivered again overwrites."""

import json
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from mlinfer import Checkpoint, DataDestination, InferencePipeline, durable
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource


@dataclass(frozen=True)
class FilePerRecord(DataDestination):
    folder: str
    keyed = True  # by the id of the record, which is its file's name

    @contextmanager
    def open(self, schema, scope):
        if not scope.read_only:  # `check` creates nothing
            durable.make_folder(Path(self.folder))
        yield RecordFiles(Path(self.folder))


class RecordFiles:
    def __init__(self, folder):
        self.folder, self.waiting = folder, []

    def write(self, batch):
        self.waiting += zip(batch.ids.array().to_pylist(), batch.records.to_pylist(), strict=True)

    def commit(self, progress):
        """Nothing is forgotten by a crash once this returns: `replace` is atomic and durable."""
        for name, record in self.waiting:
            durable.replace(self.folder / f"{name}.json", json.dumps(record).encode())
        self.waiting.clear()


def main():
    features, species = load_iris(return_X_y=True)
    host = SklearnHost(DecisionTreeClassifier(random_state=0).fit(features, species), example=features)
    pipeline = InferencePipeline(
        MemorySource(features[::10]), host, FilePerRecord("answers"), name="iris",
        checkpoint=Checkpoint("iris.progress"), require="exactly-once",
    )  # fmt: skip
    print(pipeline.run())  # 15 delivered, 0 rejected, exactly-once
    print(pipeline.run())  # 0 delivered: all were there already
    print(len(list(Path("answers").glob("*.json"))))  # 15


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
