"""Where records come from. A part is imported when it is named, so that the others cost nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlinfer.sources._csv import CsvSource
    from mlinfer.sources._iterable import IterableSource
    from mlinfer.sources._jsonl import JsonLinesSource
    from mlinfer.sources._mapped import Mapped
    from mlinfer.sources._memory import MemorySource
    from mlinfer.sources._parquet import ParquetSource
    from mlinfer.sources._sql import SqlSource
    from mlinfer.sources._whole_files import FilesSource

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

_WHERE = {
    "FilesSource": "mlinfer.sources._whole_files",
    "CsvSource": "mlinfer.sources._csv",
    "IterableSource": "mlinfer.sources._iterable",
    "JsonLinesSource": "mlinfer.sources._jsonl",
    "Mapped": "mlinfer.sources._mapped",
    "MemorySource": "mlinfer.sources._memory",
    "ParquetSource": "mlinfer.sources._parquet",
    "SqlSource": "mlinfer.sources._sql",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_WHERE[name]), name)
