"""Where answers go."""

from mlinfer.destinations._jsonl import JsonLinesDestination
from mlinfer.destinations._memory import MemoryDestination
from mlinfer.destinations._parquet import ParquetDestination
from mlinfer.destinations._sql import SqlDestination

__all__ = ["JsonLinesDestination", "MemoryDestination", "ParquetDestination", "SqlDestination"]
