"""Where records come from."""

from mlinfer.sources._jsonl import JsonLinesSource
from mlinfer.sources._memory import MemorySource
from mlinfer.sources._parquet import ParquetSource

__all__ = ["JsonLinesSource", "MemorySource", "ParquetSource"]
