"""Access logs of a web server, in the format that Apache calls common and nginx combined."""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from mlinfer import BadRecord, Batch, DataSource, EndOfInput, RecordIds, batch_from_rows, located

LINE = re.compile(
    rb'(?P<client>\S+) \S+ \S+ \[(?P<time>[^]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+)[^"]*" (?P<status>\d{3}) (?P<bytes>\d+|-)'
)
FIELDS = [
    ("client", pa.string()),
    ("time", pa.timestamp("s", "UTC")),
    ("method", pa.string()),
    ("path", pa.string()),
    ("status", pa.int16()),
    ("bytes", pa.int64()),  # null where the server answered none
]


@dataclass(frozen=True)
class AccessLogs(DataSource):
    """A folder of `*.log`, each a partition; files may grow between runs, and are never renamed."""

    folder: str
    resume = "seek"  # open() goes on behind any position that a batch has told

    def schema(self):
        return pa.schema(FIELDS)

    def partitions(self):
        return sorted(path.name for path in located(self.folder).iterdir() if path.suffix == ".log")

    @contextmanager
    def open(self, partition, after, wanted):
        fields = pa.schema([self.schema().field(name) for name in wanted.names])
        with (located(self.folder) / partition).open("rb") as file:
            file.seek(after["byte"] if after else 0)
            yield LogReader(file, partition, after["line"] if after else 0, fields)


class LogReader:
    def __init__(self, file, partition, line, fields):
        self.file, self.partition, self.line, self.fields = file, partition, line, fields

    def read(self, max_records, timeout):
        rows, ids, bad, first = [], [], [], self.line
        while self.line - first < max_records:
            text = self.file.readline()
            if not text.endswith(b"\n"):  # the end, or a line that the server is still writing
                self.file.seek(-len(text), 1)
                break
            name = f"{self.partition}#{self.line}"  # the same each time, whatever the batch
            self.line += 1
            try:
                rows.append(parsed(text))
                ids.append(name)
            except ValueError as error:  # beside its batch, as a reject; the others go on
                bad.append(BadRecord(name, "not_a_log_line", str(error), text))
        if self.line == first:
            raise EndOfInput
        records, _, _ = batch_from_rows(rows, self.fields)
        position = {"byte": self.file.tell(), "line": self.line}  # where the next record begins
        return Batch(records, self.partition, position, RecordIds.of(pa.array(ids, pa.string())), tuple(bad))


def parsed(text):
    found = LINE.match(text)
    if not found:
        msg = "wanted a line of an access log, found another text"
        raise ValueError(msg)
    row = {name: value.decode() for name, value in found.groupdict().items()}
    time = datetime.strptime(row["time"], "%d/%b/%Y:%H:%M:%S %z")
    size = None if row["bytes"] == "-" else int(row["bytes"])
    return {**row, "time": time, "status": int(row["status"]), "bytes": size}
