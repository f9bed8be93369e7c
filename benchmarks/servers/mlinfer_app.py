"""mlinfer with scikit-learn's own predict, and without a log; the compiled form is `mlinfer serve MODEL` itself.

python benchmarks/servers/mlinfer_app.py MODEL PORT [WORKERS]
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlinfer import DataDestination, InferencePipeline
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource


class Nowhere(DataDestination):
    """Keeps nothing."""

    @contextmanager
    def open(self, schema: object, scope: object) -> Iterator["Nowhere"]:  # noqa: ARG002
        """Be its own writer."""
        yield self

    def write(self, batch: object) -> None:
        """Let it go."""

    def commit(self, progress: object) -> None:
        """Nothing is kept."""


if __name__ == "__main__":
    model, port, *workers = sys.argv[1:]
    InferencePipeline(
        MemorySource({"x": []}), SklearnHost(model, compile="never"), Nowhere(), name="uncompiled"
    ).serve(f"127.0.0.1:{port}", workers=int(*workers or [1]))
