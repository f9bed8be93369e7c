"""Where answers go."""

from mlinfer.destinations._memory import MemoryDestination

__all__ = ["MemoryDestination"]
