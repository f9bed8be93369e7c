"""Tests and linters run on packages that are known byte by byte: requirements/, which `make lock` writes from pyproject.toml."""

import os
import re
import subprocess
import tomllib
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ASKED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, GROUPS = ASKED["project"], ASKED["dependency-groups"]
FILES = {
    "test": [
        *ASKED["build-system"]["requires"],
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["test"],
    ],
    **GROUPS,
}
"""Which requirements each file of the folder holds, with all that those bring."""
LINE = re.compile(
    r"""[a-z0-9-]+==[A-Za-z0-9.]+([ ];[ ][^\\]+)?[ ]\\  # a package, its version and where it is wanted
    |\ {4}--hash=sha256:[0-9a-f]{64}([ ]\\)?            # the files that it may come in
    |\ *\#(?!.*//).*                                    # who asked for it: no address
    """,
    re.VERBOSE,
)
PLACES = [
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system, "extra": ""}
    for python, system in product(["3.11", "3.12", "3.13", "3.14"], ["linux", "darwin"])
]


def text(name):
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name):
    """What is locked, each with the lines below it."""
    found = re.findall(r"^([a-z].*) \\\n((?:[ ]+.*\n)+)", text(name), re.MULTILINE)
    return [(Requirement(pin), below) for pin, below in found]


def applies(requirement, place):
    return requirement.marker is None or requirement.marker.evaluate(place)


def test_every_group_has_its_file_and_no_file_is_left_over():
    assert {file.stem for file in (ROOT / "requirements").iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_one_version_and_the_hashes_of_its_files_and_nobody_says_where_it_lies(name):
    lines = text(name).splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    found = pins(name)
    assert len(found) == sum("==" in line for line in lines) > 0
    assert [pin.name for pin, below in found if "--hash=sha256:" not in below] == []


@pytest.mark.parametrize("name", FILES)
def test_what_pyproject_asks_for_is_locked_within_its_bounds_on_every_python(name):
    found = [pin for pin, _ in pins(name)]
    for asked in map(Requirement, FILES[name]):
        same = [pin for pin in found if pin.name == canonicalize_name(asked.name)]
        for place in (one for one in PLACES if applies(asked, one)):
            there = [pin for pin in same if applies(pin, place)]
            assert len(there) == 1, f"{asked} on {place}: wanted in requirements/{name}.txt; make lock"
            version = str(there[0].specifier).removeprefix("==")
            assert asked.specifier.contains(version, prereleases=True), f"{asked}: found {version}; make lock"


@pytest.mark.parametrize("name", FILES)
def test_what_pyproject_no_longer_asks_for_is_no_longer_locked(name):
    locked = {pin.name for pin, below in pins(name) if "mlinfer (pyproject.toml" in below}
    asked = {canonicalize_name(Requirement(one).name) for one in FILES[name]}
    assert locked == asked, "make lock"


def test_tests_and_linters_agree_about_what_both_want():
    tests, linters = ({pin.name: pin.specifier for pin, _ in pins(name)} for name in ("test", "dev"))
    both = tests.keys() & linters.keys()
    assert both
    assert {name: tests[name] for name in both} == {name: linters[name] for name in both}


def test_nothing_comes_into_the_environment_of_tests_and_linters_that_is_not_locked():
    goals = ["venv", "lint", "test-browser", "audit", "bench"]
    shown = subprocess.check_output(
        ["make", "--dry-run", "--always-make", *goals],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"]
        },  # make, when it runs the tests, tells the makes below what it was asked
        text=True,
    )
    installs = [line for line in shown.splitlines() if "pip install" in line]
    assert len(installs) == 5  # tests, mlinfer itself, kserve, linters, audit
    itself = [line for line in installs if "--require-hashes --only-binary :all:" not in line]
    assert len(itself) == 1
    assert {"--no-deps", "--no-build-isolation"} <= set(itself[0].split())
