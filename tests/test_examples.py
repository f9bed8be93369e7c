"""Every example runs as it is, says what its comments say, and stays short."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import mlinfer

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


def test_the_service_runs_as_its_readme_and_its_containerfile_say(tmp_path):
    folder = tmp_path / "online"
    shutil.copytree(FOLDER / "online", folder)

    def run(*command):
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

    command_line = [sys.executable, "-m", "mlinfer"]
    run(sys.executable, "fit.py")
    (folder / "state").mkdir()
    assert run(*command_line, "run", "pipeline.toml").startswith("150 delivered, 0 rejected, exactly-once")
    srv = tmp_path / "srv"
    built((folder / "Containerfile").read_text(), folder, srv)
    shutil.move(folder / "state", srv)
    command = json.loads(
        re.search(r"^CMD (.*)", (folder / "Containerfile").read_text(), re.MULTILINE | re.DOTALL)[1].replace(
            "\\\n", ""
        )
    )
    assert command[0] == "mlinfer"
    here = {"0.0.0.0:8080": "127.0.0.1:0", "0.0.0.0:9090": "127.0.0.1:0"}
    server = subprocess.Popen(
        [*command_line, *(here.get(word, word) for word in command[1:])], cwd=srv, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        said = next(line for line in server.stderr if line.startswith("serving at"))
        url = re.search(r"serving at (\S+)/predict", said)[1]
        printed = run(sys.executable, "client.py", url).splitlines()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()
    assert printed == re.findall(r"^ +print\(.*\)  # (.*)$", (folder / "client.py").read_text(), re.MULTILINE)
    with closing(sqlite3.connect(srv / "state" / "answers.db")) as database:
        logged = [
            row for (row,) in database.execute("SELECT y_pred FROM answers ORDER BY inferred_at, rowid")
        ]
    assert len(logged) == 153
    assert logged[150:] == ["setosa", "versicolor", "virginica"]


def test_the_service_needs_no_extra_that_its_readme_does_not_install(tmp_path):
    text = (FOLDER / "online" / "README.md").read_text(encoding="utf-8")
    extras = re.search(r"pip install 'mlinfer\[([a-z,]+)\]'", text)[1].split(",")
    program = f"""
import runpy, sys
runpy.run_path({str(FOLDER / "online" / "fit.py")!r})
print(*{{"pandas", "polars", "onnx"}}.intersection(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= set(extras)


def built(text, context, srv):
    """What stands in /srv of the image, by the rules of COPY; whoever the container runs as must be able to read it."""
    user, owners = int(re.search(r"^USER (\d+)$", text, re.MULTILINE)[1]), {}
    srv.mkdir()
    for owner, words in re.findall(r"^COPY (?:--chown=(\d+) )?(.*)$", text, re.MULTILINE):
        *sources, place = words.split()
        assert place.endswith("/"), "a place without a slash is a file"
        folder = srv / place.removeprefix("/srv/")
        folder.mkdir(exist_ok=True)
        for source in (context / name for name in sources):
            if source.is_dir():
                shutil.copytree(source, folder, dirs_exist_ok=True)  # its contents, and not the folder itself
            else:
                shutil.copy(source, folder)  # with its mode
        owners.update({path: int(owner or 0) for path in srv.rglob("*") if path not in owners})
    for path, owner in owners.items():
        need = 0o5 if path.is_dir() else 0o4
        mode = path.stat().st_mode >> (6 if owner == user else 0)
        assert mode & need == need, f"user {user} cannot read {path.name}, which belongs to {owner}"


def test_the_image_of_a_model_alone_can_be_built_and_read(tmp_path):
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    mlinfer.save(model, tmp_path / "model.mlinfer", example=np.array([[0.0]]))
    page = (FOLDER.parent / "docs/how-to/serve.md").read_text(encoding="utf-8")
    text = page.partition("```dockerfile\n")[2].partition("```")[0]
    built(text, tmp_path, tmp_path / "srv")
    place = re.search(r'"serve", "([^"]+)"', text)[1]
    assert (tmp_path / "srv" / place / "manifest.json").is_file()


def test_the_files_of_the_service_are_short_and_listed():
    text = (FOLDER / "online" / "README.md").read_text(encoding="utf-8")
    files = [path for path in (FOLDER / "online").iterdir() if path.is_file() and path.name != "README.md"]
    assert len(files) == 4
    assert [path.name for path in files if f"({path.name})" not in text] == []
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 60 for path in files)
