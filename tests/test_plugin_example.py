"""A stranger's package, installed by pip: its parts are found, run from a file, and pass the kit."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "examples" / "plugin"
ONE_MORE = '192.0.2.9 - - [01/May/2024:10:00:00 +0200] "GET /shop HTTP/1.1" 200 12 "-" "Mozilla/5.0"\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that holds the installed package and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(
        PACKAGE, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__", "*.db", ".*")
    )
    # nothing is fetched: the build backend is one of the packages that the tests need
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", source)
    shutil.rmtree(source / "src")
    return folder / "site"


@pytest.fixture
def desk(tmp_path):
    """What lies beside the package's code: the logs, the usual paths, the pipeline, the tests."""
    return shutil.copytree(
        PACKAGE, tmp_path / "desk", ignore=shutil.ignore_patterns("src", "__pycache__", "*.db", ".*")
    )


def run(*command, cwd=None, site=""):
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def mlinfer(*words, cwd, site):
    return run(sys.executable, "-m", "mlinfer", *words, cwd=cwd, site=site)


def test_its_parts_are_listed_with_their_package(site, desk):
    listed = [line.split() for line in mlinfer("plugins", cwd=desk, site=site).splitlines()]
    theirs = [line[:4] for line in listed if "mlinfer-weblog" in line]
    assert theirs == [
        ["weblog", "source", "mlinfer-weblog", "1.0"],
        ["surprise", "host", "mlinfer-weblog", "1.0"],
        ["documents", "destination", "mlinfer-weblog", "1.0"],
    ]


def test_a_second_run_of_its_pipeline_delivers_what_is_new_and_nothing_twice(site, desk):
    def said():
        return mlinfer("run", "pipeline.toml", cwd=desk, site=site).splitlines()[0]

    assert said().startswith("6 delivered, 1 rejected, exactly-once")
    assert said().startswith("0 delivered: all were there already")
    with (desk / "logs" / "2024-05-01.log").open("a", encoding="utf-8") as file:
        file.write(ONE_MORE)
    assert said().startswith("1 delivered, 0 rejected, exactly-once")

    with closing(sqlite3.connect(desk / "visits.db")) as database:
        found = database.execute("SELECT output, id, document FROM documents ORDER BY id").fetchall()
    assert [(output, name) for output, name, _ in found] == [
        ("rejects" if line == 5 else "main", f"2024-05-01.log#{line}") for line in range(8)
    ]
    scores = {
        row["path"]: row["surprise"] for row in (json.loads(text) for output, _, text in found if output == "main")
    }  # fmt: skip
    odd = {"/wp-login.php", "/cgi-bin/..%2F..%2Fetc/passwd"}
    assert min(scores[path] for path in odd) > max(score for path, score in scores.items() if path not in odd)


def test_its_rejects_can_be_read_back(site, desk):
    mlinfer("run", "pipeline.toml", cwd=desk, site=site)
    assert "2024-05-01.log#5" in mlinfer("rejects", "ls", "pipeline.toml", cwd=desk, site=site)


def test_its_own_tests_pass_with_the_kit(site, desk):
    said = run(
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rP", "tests", cwd=desk, site=site
    )
    for line in (
        "  into a transactional destination: exactly-once",
        "  from a source that can seek: exactly-once",
        "  from a source that acknowledges: exactly-once",
    ):
        assert line in said
