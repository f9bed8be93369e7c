"""A destination of your own: a folder with a file per record, which a record delivered again overwrites."""

from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from mlinfer import Checkpoint, DataDestination, InferencePipeline, durable, json_objects
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource


@dataclass(frozen=True)
class FilePerRecord(DataDestination):
    folder: str
    keyed = True  # by the id of the record, which is its file's name

    @contextmanager
    def open(self, schema, scope):
        folder = Path(self.folder, scope.pipeline, scope.output)  # rejects must not mix with answers
        if not scope.read_only:  # `check` creates nothing
            durable.make_folder(folder)
        for path in folder.glob("*.json") if scope.fresh else ():  # run(from_start=True) begins anew
            durable.remove(path)
        yield RecordFiles(folder)


class RecordFiles:
    def __init__(self, folder):
        self.folder, self.waiting = folder, []

    def write(self, batch):
        records = json_objects(batch.records).to_pylist()
        self.waiting += zip(batch.ids.array().to_pylist(), records, strict=True)

    def commit(self, progress):
        for name, record in self.waiting:
            durable.replace(self.folder / f"{name}.json", record.encode())  # survives a crash
        self.waiting = []


def main():
    features, species = load_iris(return_X_y=True)
    host = SklearnHost(DecisionTreeClassifier(random_state=0).fit(features, species), example=features)
    pipeline = InferencePipeline(
        MemorySource(features[::10]), host, FilePerRecord("answers"), name="iris",
        checkpoint=Checkpoint("iris.progress"), require="exactly-once",
    )  # fmt: skip
    print(pipeline.run())  # 15 delivered, 0 rejected, exactly-once
    print(pipeline.run())  # 0 delivered: all were there already
    print(len(list(Path("answers/iris/main").glob("*.json"))))  # 15


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
