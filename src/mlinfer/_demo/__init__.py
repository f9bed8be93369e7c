"""The demo: real flights, a small model, a database; and what happens when the run is killed."""

from mlinfer._demo._story import demo

__all__ = ["demo"]
