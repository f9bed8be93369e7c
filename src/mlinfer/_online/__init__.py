"""The same pipeline as a server."""

from mlinfer._online._server import Server, serving

__all__ = ["Server", "serving"]
