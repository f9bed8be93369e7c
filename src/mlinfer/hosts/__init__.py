"""What runs a model over records."""

from mlinfer.hosts._function import FunctionHost, host

__all__ = ["FunctionHost", "host"]
