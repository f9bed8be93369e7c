"""Where answers go."""

from mlinfer.destinations._csv import CsvDestination
from mlinfer.destinations._jsonl import JsonLinesDestination
from mlinfer.destinations._memory import MemoryDestination
from mlinfer.destinations._parquet import ParquetDestination
from mlinfer.destinations._sql import SqlDestination
from mlinfer.destinations._stdout import StdoutDestination
from mlinfer.destinations._tee import Tee

__all__ = [
    "CsvDestination",
    "JsonLinesDestination",
    "MemoryDestination",
    "ParquetDestination",
    "SqlDestination",
    "StdoutDestination",
    "Tee",
]
