"""What all tests share."""

import functools
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

# Set before numpy is imported: the threads of two test processes would wait for each other on two cores, and the models are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Nothing is timed in tests: the first example pays for imports, and the machine may be busy. A change is judged by the same
# examples every time; new ones are looked for by `make search`, whose finds become an @example.
settings.register_profile("search", deadline=None, max_examples=2000)
settings.register_profile("mlinfer", deadline=None, derandomize=True)
settings.load_profile("mlinfer")
# Nor is a client: within the 5 s of httpx no process starts anew on a machine that is busy with three others.
for _wait in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _wait, 60.0)
# Each client would read this machine's certificates anew, and takes longer for that than for what it asks.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)
LONGEST = [
    "test_lanes.py",
    "test_kill_lanes.py",
    "test_builtin_parts.py",
    "test_examples.py",
    "test_docs.py",
    "test_compiled.py",
    "test_train.py",
    "test_online_workers.py",
    "test_demo.py",
    "test_plugin_example.py",
]
"""Begun first: many of them are few tests, and at the end one process would be left alone with one of them."""
FAST = Path(__file__).resolve().parents[1] / "packages" / "mlinfer-fast"


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def fast_site(tmp_path_factory):
    """A folder with mlinfer-fast, compiled by pip as anybody would."""
    folder = tmp_path_factory.mktemp("fast")
    shutil.copytree(FAST, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", folder / "site", folder / "source"], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def library(fast_site):
    """mlinfer-fast, as if it were installed for the tests of one module."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("mlinfer_fast")}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(fast_site)
        yield importlib.import_module("mlinfer_fast")
        for name in [name for name in sys.modules if name.startswith("mlinfer_fast")]:
            del sys.modules[name]
    sys.modules.update(kept)
