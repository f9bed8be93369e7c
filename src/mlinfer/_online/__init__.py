"""The same pipeline as a server."""

from mlinfer._online._crew import Crew, serving
from mlinfer._online._keys import new_key
from mlinfer._online._nowhere import Nowhere
from mlinfer._online._server import Server
from mlinfer._online._serving import Serving, ServingOptions

__all__ = ["Crew", "Nowhere", "Server", "Serving", "ServingOptions", "new_key", "serving"]
