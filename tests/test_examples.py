"""Every example runs as it is, says what its comments say, and stays short."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_example_prints_what_its_comments_say(example, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", example],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^ +print\(.*\)  # (.*)$", example.read_text(encoding="utf-8"), re.MULTILINE)
    printed = done.stdout.splitlines()
    assert len(shown) == len(printed), "every line that is printed is shown in a comment"
    for text, line in zip(shown, printed, strict=True):
        assert line.startswith(text.removesuffix("..."))
    assert list(tmp_path.iterdir()) == []  # it cleans up behind itself


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_example_has_fewer_than_60_lines(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


def test_the_list_of_examples_is_complete():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES if f"({path.name})" not in text] == []
