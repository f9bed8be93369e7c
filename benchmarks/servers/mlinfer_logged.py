"""mlinfer with what is asked and answered kept in Parquet, behind the answers.

LOG=FOLDER python benchmarks/servers/mlinfer_logged.py MODEL PORT
"""

import os
import sys

from mlinfer import InferencePipeline
from mlinfer.destinations import ParquetDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

if __name__ == "__main__":
    model, port = sys.argv[1:]
    InferencePipeline(
        MemorySource({"x": []}), SklearnHost(model), ParquetDestination(os.environ["LOG"]), name="logged"
    ).serve(f"127.0.0.1:{port}")
