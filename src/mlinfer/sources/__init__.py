"""Where records come from."""

from mlinfer.sources._blobs import FilesSource
from mlinfer.sources._csv import CsvSource
from mlinfer.sources._iterable import IterableSource
from mlinfer.sources._jsonl import JsonLinesSource
from mlinfer.sources._mapped import Mapped
from mlinfer.sources._memory import MemorySource
from mlinfer.sources._parquet import ParquetSource
from mlinfer.sources._sql import SqlSource

__all__ = [
    "CsvSource",
    "FilesSource",
    "IterableSource",
    "JsonLinesSource",
    "Mapped",
    "MemorySource",
    "ParquetSource",
    "SqlSource",
]
