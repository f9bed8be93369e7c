"""Where answers go. A part is imported when it is named, so that the others cost nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_WHERE = {
    "CsvDestination": "mlinfer.destinations._csv",
    "JsonLinesDestination": "mlinfer.destinations._jsonl",
    "MemoryDestination": "mlinfer.destinations._memory",
    "ParquetDestination": "mlinfer.destinations._parquet",
    "SqlDestination": "mlinfer.destinations._sql",
    "StdoutDestination": "mlinfer.destinations._stdout",
    "Tee": "mlinfer.destinations._tee",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_WHERE[name]), name)
