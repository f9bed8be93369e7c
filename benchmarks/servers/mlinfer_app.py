"""mlinfer with scikit-learn's own predict, and without a log; the compiled form is `mlinfer serve MODEL` itself.

python benchmarks/servers/mlinfer_app.py MODEL PORT [WORKERS]
"""

import sys

from mlinfer import InferencePipeline
from mlinfer._online import Nowhere  # the destination of a model that is served alone
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

if __name__ == "__main__":
    model, port, *workers = sys.argv[1:]
    InferencePipeline(
        MemorySource({"x": []}), SklearnHost(model, compile="never"), Nowhere(), name="uncompiled"
    ).serve(f"127.0.0.1:{port}", workers=int(*workers or [1]))
