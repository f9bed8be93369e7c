"""Places that cannot be reached, listed or written to are errors in words: where, what was found, what to do."""

import os
import resource

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import mlinfer
from mlinfer import Checkpoint, ComponentError, ConfigError, InferencePipeline
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
    StdoutDestination,
)
from mlinfer.hosts import FunctionHost, OnnxHost, SklearnHost, expect_place, manifest
from mlinfer.lifecycle import ByKey
from mlinfer.sources import CsvSource, FilesSource, JsonLinesSource, MemorySource, ParquetSource, SqlSource


def double(x):
    return x * 2


HOST = FunctionHost(double, {"x": "double"}, {"y": "double"}, "numpy", version="1")
LINE = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
ONE = np.ones((1, 1))


def run(source=None, host=HOST, destination=None, **more):
    source, destination = source or MemorySource({"x": [1.0]}), destination or MemoryDestination()
    return InferencePipeline(source, host, destination, name="p", **more).run()


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder that this user may not enter, in the one that it is in."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "in.csv").write_text("x\n1\n")
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda folder: run(CsvSource(folder / "in.csv")),
        lambda folder: run(ParquetSource(folder / "in/*.parquet")),
        lambda folder: run(JsonLinesSource(folder / "in.jsonl")),
        lambda folder: FilesSource(folder / "in").partitions(),
        lambda folder: run(SqlSource(f"sqlite:///{folder}/in.db", "SELECT 1.0 AS x")),
        lambda folder: run(host=SklearnHost(folder / "m.mlinfer")),
        lambda folder: run(host=SklearnHost(folder / "m.skops")),
        lambda folder: run(host=OnnxHost(folder / "m.onnx")),
        lambda folder: run(destination=CsvDestination(folder / "out.csv")),
        lambda folder: run(destination=JsonLinesDestination(folder / "out.jsonl")),
        lambda folder: run(destination=ParquetDestination(folder / "out")),
        lambda folder: run(destination=SqlDestination(f"sqlite:///{folder}/out.db", "t")),
        lambda folder: run(destination=StdoutDestination(), checkpoint=Checkpoint(folder / "p.progress")),
        lambda folder: mlinfer.save(LINE, folder / "m.mlinfer", example=ONE),
        lambda folder: manifest(folder / "m.mlinfer"),
    ],
)
def test_a_folder_that_this_user_may_not_enter_is_said(closed, attempt):
    with pytest.raises(ConfigError, match=r"closed/.*found: Permission denied; .*let the user into"):
        attempt(closed)


def test_a_folder_of_parts_that_this_user_may_not_list_is_said(closed):
    with pytest.raises(
        ConfigError, match="closed: wanted a folder that this user may list, found Permission"
    ):
        run(destination=ParquetDestination("closed"))


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_said(path):
    with pytest.raises(ConfigError, match="wanted a path that this user can follow, found: "):
        run(ParquetSource(path))
    with pytest.raises(ConfigError, match="wanted a path that this user can follow, found: "):
        run(destination=CsvDestination(path))


def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("x\n1\n")
    monkeypatch.setenv("DATA", "")
    with pytest.raises(ConfigError, match="wanted a path, found the empty text; the folder you are in is"):
        run(CsvSource(""))
    with pytest.raises(ConfigError, match=r"wanted a path, found the empty text that \${DATA} stands for"):
        run(CsvSource("${DATA}"))
    assert run(CsvSource(".")).delivered == 1


def test_a_package_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(ComponentError, match=r"m.mlinfer: wanted to write the package, found File too l"):
            mlinfer.save(LINE, tmp_path / "m.mlinfer", example=ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ComponentError, match=r"m.mlinfer: wanted to write the package, found Not a directory"
    ):
        mlinfer.save(LINE, tmp_path / "file" / "m.mlinfer", example=ONE)


def test_a_place_that_may_not_be_written_to_is_said_before_a_model_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK | os.X_OK)

    class Fitted(LogisticRegression):
        def fit(self, *_):
            raise AssertionError

    with pytest.raises(ConfigError, match=r"found that this user may not write to .*; allow it, or name"):
        mlinfer.save(LINE, tmp_path / "m.mlinfer", example=ONE)
    with pytest.raises(ConfigError, match=r"found that this user may not write to .*; allow it, or name"):
        mlinfer.train(
            {"x": [1.0, 2.0] * 50, "id": list(range(100)), "y": [0, 1] * 50}, Fitted(),
            target="y", split=ByKey("id"), to=tmp_path / "m.mlinfer",
        )  # fmt: skip


def test_a_place_is_refused_before_a_fit_for_all_that_save_would_refuse_behind_it(tmp_path):
    taken, nameless = tmp_path / "m.mlinfer", tmp_path / "no name.mlinfer"
    mlinfer.save(LINE, taken, example=ONE)
    for place, found in ((taken, "found a package there"), (nameless, "found 'no name'")):
        for ask in (expect_place, lambda path: mlinfer.save(LINE, path, example=ONE)):
            with pytest.raises(ConfigError, match=found):
                ask(place)
    assert expect_place(tmp_path / "new.mlinfer") is None


def test_a_place_is_asked_about_in_all_spellings_that_save_takes(tmp_path, monkeypatch):
    (tmp_path / "m.mlinfer").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path))
    for place in (str(tmp_path / "m.mlinfer"), "~/m.mlinfer", "${MODELS}/m.mlinfer"):
        with pytest.raises(ConfigError, match="wanted a new path for the package, found something there"):
            expect_place(place)
