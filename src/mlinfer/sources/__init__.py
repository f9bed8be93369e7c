"""Where records come from."""

from mlinfer.sources._memory import MemorySource

__all__ = ["MemorySource"]
