"""What a child that is to be asked to stop runs: `mlinfer run` itself, but for the file that would define the pipeline."""

import sys

folder, kind, pause = sys.argv[1:]
sys.argv[:] = ["mlinfer", "run", "tortured.toml", "--no-progress", "--debug"]

import torture.lean  # isort: skip  # noqa: E402, F401 - before pyarrow
import mlinfer  # isort: skip  # noqa: E402, F401 - heeds signals from here on

from pathlib import Path  # noqa: E402

from mlinfer._cli import _pipelines, main  # noqa: E402
from torture.job import pipeline  # noqa: E402

_pipelines.pipeline_of = lambda asked, path: pipeline(Path(folder), kind, 5, float(pause))
sys.exit(main())
