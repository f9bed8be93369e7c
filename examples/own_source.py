"""A source of your own: a log per sensor, each a partition with its own position."""

from contextlib import chdir, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from mlinfer import Batch, DataSource, EndOfInput, InferencePipeline, RecordIds, batch_from_rows, host
from mlinfer.destinations import SqlDestination


@dataclass(frozen=True)
class SensorLogs(DataSource):
    folder: str  # of SENSOR.log, a number a line
    resume = "seek"

    def partitions(self):
        return sorted(path.stem for path in Path(self.folder).glob("*.log"))

    @contextmanager
    def open(self, partition, after, wanted):
        with Path(self.folder, f"{partition}.log").open() as file:
            file.seek(after["byte"] if after else 0)
            yield SensorReader(file, partition, after["line"] if after else 0, wanted)


class SensorReader:
    def __init__(self, file, sensor, line, wanted):
        self.file, self.sensor, self.line, self.wanted = file, sensor, line, wanted

    def read(self, max_records, timeout):
        lines = islice(iter(self.file.readline, ""), max_records)
        rows = [{"sensor": self.sensor, "celsius": float(line)} for line in lines]
        if not rows:
            raise EndOfInput
        ids = RecordIds.ordinals(self.sensor, self.line, len(rows))
        self.line += len(rows)
        records, _, _ = batch_from_rows(rows, self.wanted)
        return Batch(records, self.sensor, {"byte": self.file.tell(), "line": self.line}, ids)


@host(inputs={"celsius": "double"}, outputs={"alarm": "bool"}, takes="numpy")
def alarm(celsius):
    return celsius > 90


def main():
    Path("boiler.log").write_text("85.5\n95.0\n")
    Path("pump.log").write_text("40\n41\n")
    alarms = SqlDestination("sqlite:///alarms.db", table="alarms")
    pipeline = InferencePipeline(SensorLogs("."), alarm, alarms, name="alarms", keep={"sensor": "string"})
    print(pipeline.run())  # 4 delivered, 0 rejected, exactly-once
    print(pipeline.run())  # 0 delivered: all were there already


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
