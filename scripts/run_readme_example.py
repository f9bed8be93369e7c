"""Runs the README's first example, word for word, and checks what it prints.

`make test` runs this in an environment that has mlinfer's core dependencies and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WANTED = [
    r"150 delivered, 0 rejected, exactly-once \([^)]+ s\)",
    r"0 delivered: all were there already",
    r"pyarrow\.Table\ny_pred: int64 not null\n----\ny_pred: \[\[0,0\]\]",
]
BEYOND_THE_CORE = ["orjson", "pandas", "polars", "prometheus_client", "sqlalchemy", "pytest"]


def main() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert example is not None, "README.md: wanted a python block, found none"
    present = [name for name in BEYOND_THE_CORE if find_spec(name)]
    assert not present, f"wanted an environment with the core alone, found {', '.join(present)}"
    with tempfile.TemporaryDirectory() as folder:
        printed = run(example[1], Path(folder))
    assert re.fullmatch("\n".join([*WANTED, ""]), printed), f"README.md: the first example printed\n{printed}"
    print(
        f"README.md: the first example runs with the core of mlinfer {metadata('mlinfer')['Version']} alone"
    )


def run(code: str, folder: Path) -> str:
    """What the code prints, as a program of its own."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-W", "error", "example.py"]
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120
    ).stdout


if __name__ == "__main__":
    main()
