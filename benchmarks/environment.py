"""The interpreter that runs the contenders, and what there is to say about it and the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
VENV = HERE / ".venv-bench"
PEERS = ("orjson", "pandas", "polars", "daft", "bytewax")
FAST = HERE.parent / "packages" / "mlinfer-fast"  # an extension, where a C compiler is
PACKAGES = ("mlinfer", "mlinfer-fast", "numpy", "scikit-learn", "pyarrow", *PEERS)


def requirements() -> tuple[list[str], list[str]]:
    """What every contender needs, and the peers, which may fail to install."""
    lines = [line.split("#")[0].strip() for line in (HERE / "requirements.txt").read_text().splitlines()]
    peers = [line for line in lines if line.startswith(PEERS)]
    return [line for line in lines if line and line not in peers], peers


def bench_python() -> Path:
    """The interpreter of ``.venv-bench``, which is made now, or renewed if the requirements changed."""
    python, stamp = VENV / "bin" / "python", VENV / "made-from"
    text = "".join((HERE / name).read_text() for name in ("requirements.txt", "../pyproject.toml"))
    recipe = hashlib.sha256((sys.version + text).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == recipe:
        return python
    print(f"Setting up {VENV.name} ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    needed, peers = requirements()
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *needed, "--editable", HERE.parent], check=True)
    for peer in [str(FAST), *peers]:
        if subprocess.run([*pip, peer], check=False).returncode:
            print(f"{peer} can't be installed here; its rows will be missing.", file=sys.stderr)
    stamp.write_text(recipe)
    return python


def installed(python: Path) -> dict[str, str]:
    """The versions of the packages that matter, as the contenders' interpreter has them."""
    answer = subprocess.run([python, __file__], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """The commit that is measured; empty outside a repository."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip()


def machine() -> str:
    """Processor, cores, memory and kernel, in one line."""
    cpu = Path("/proc/cpuinfo")
    models = [
        line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = models[0] if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    print(json.dumps(versions()))
