"""Secrets come from the environment and from files, once, and never show in errors."""

import traceback

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import Checkpoint, ConfigError, InferencePipeline
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
    Tee,
)
from mlinfer.hosts import OnnxHost, SklearnHost, manifest
from mlinfer.sources import CsvSource, MemorySource


def test_a_text_without_references_is_itself():
    for text in ["", "sqlite:///scores.db", "a $dollar and {braces}", "file:relative", "profile:/x"]:
        assert mlinfer.resolve(text) == text


def test_variables_are_filled_in_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "s3cret")
    monkeypatch.setenv("DB_HOST", "db.example")
    assert (
        mlinfer.resolve("postgresql://u:${DB_PASSWORD}@${DB_HOST}/x") == "postgresql://u:s3cret@db.example/x"
    )


def test_an_empty_variable_is_a_value(monkeypatch):
    monkeypatch.setenv("EMPTY", "")
    assert mlinfer.resolve("[${EMPTY}]") == "[]"


def test_a_value_is_not_resolved_again(monkeypatch, tmp_path):
    monkeypatch.setenv("OUTER", "${INNER} and $1 \\1")
    monkeypatch.setenv("POINTS", "file:/etc/passwd")
    (tmp_path / "secret").write_text("${OUTER}")
    assert mlinfer.resolve("${OUTER}") == "${INNER} and $1 \\1"
    assert mlinfer.resolve("${POINTS}") == "file:/etc/passwd"
    assert mlinfer.resolve(f"file:{tmp_path}/secret") == "${OUTER}"


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("NOT_SET_AT_ALL", raising=False)
    with pytest.raises(ConfigError, match=r"NOT_SET_AT_ALL.*found none; set it"):
        mlinfer.resolve("x${NOT_SET_AT_ALL}y")


@pytest.mark.parametrize("text", ["${}", "${a-b}", "${1x}", "${A\nB}"])
def test_a_name_that_cannot_be_one_is_refused(text):
    with pytest.raises(ConfigError, match="name of an environment variable"):
        mlinfer.resolve(text)


def test_a_file_is_read_and_stripped(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("  abc def\n\n")
    monkeypatch.setenv("CREDENTIALS", str(tmp_path))
    assert mlinfer.resolve(f"file:{tmp_path}/key") == "abc def"
    assert mlinfer.resolve("file:${CREDENTIALS}/key") == "abc def"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.*No such file"):
        mlinfer.resolve(f"file:{tmp_path}/nowhere")


def test_a_file_that_is_no_secret_is_refused_without_showing_it(tmp_path):
    (tmp_path / "binary").write_bytes(b"hidden\xff\xfe")
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    with pytest.raises(ConfigError, match="UTF-8") as found:
        mlinfer.resolve(f"file:{tmp_path}/binary")
    assert "hidden" not in str(found.value)
    assert found.value.__cause__ is None
    with pytest.raises(ConfigError, match="65,536"):
        mlinfer.resolve(f"file:{tmp_path}/big")


WRITTEN = {
    "out.jsonl": lambda: {"destination": JsonLinesDestination("${PLACE}/out.jsonl")},
    "out.csv": lambda: {"destination": CsvDestination("${PLACE}/out.csv")},
    "out": lambda: {"destination": ParquetDestination("${PLACE}/out")},
    "out.db": lambda: {"destination": SqlDestination("sqlite:///${PLACE}/out.db", "t")},
    "out.progress": lambda: {
        "destination": Tee(MemoryDestination(), ParquetDestination("${PLACE}/tee")),
        "checkpoint": Checkpoint("${PLACE}/out.progress"),
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_path_to_a_model_and_to_what_is_written_may_name_a_variable(name, tmp_path, monkeypatch):
    place = tmp_path / "in its place"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    mlinfer.save(
        LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), place / "m.mlinfer", example=np.ones((1, 1))
    )
    pipeline = InferencePipeline(
        MemorySource(np.ones((2, 1))), SklearnHost("${PLACE}/m.mlinfer"), name="p", **WRITTEN[name]()
    )
    monkeypatch.delenv("PLACE", raising=False)
    with pytest.raises(ConfigError, match="PLACE: wanted a value, found none; set it"):
        pipeline.run()
    monkeypatch.setenv("PLACE", str(place))
    assert pipeline.run().delivered == 2
    assert (place / name).exists()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_watched_onnx_file_may_name_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path))
    for watch in (False, True):
        with (
            pytest.raises(ConfigError, match=f"{tmp_path}/m.onnx"),
            OnnxHost("${PLACE}/m.onnx", watch=watch).open(),
        ):
            pass


def test_a_path_means_the_same_wherever_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", "models")
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    saved = mlinfer.save(model, "~/${MODELS}/m.mlinfer", example=np.ones((1, 1)))
    assert saved == mlinfer.located("~/${MODELS}/m.mlinfer") == tmp_path / "models/m.mlinfer"
    assert (tmp_path / "models/m.mlinfer/manifest.json").is_file()
    assert manifest("~/${MODELS}/m.mlinfer")["model_id"] == "m"
    with SklearnHost("~/${MODELS}/m.mlinfer").open() as opened:
        assert opened.signature.model_id == "m"


def test_a_home_folder_that_nobody_has_is_named():
    with pytest.raises(
        ConfigError, match=r"~nobody-here/x: wanted a home folder for ~nobody-here, found none"
    ):
        mlinfer.located("~nobody-here/x")


@pytest.mark.parametrize("path", [b"in.csv", None, 3])
def test_what_is_no_path_is_told_in_words_when_a_part_opens(path):
    with pytest.raises(ConfigError, match=rf"wanted a path as text or Path, found {path!r}; write it as"):
        CsvSource(path).partitions()


def test_a_secret_in_a_variable_that_should_name_a_path_is_not_shown(monkeypatch):
    secret = "-----BEGIN PRIVATE KEY-----\n" + "Zm9v" * 90  # longer than a name of a file
    monkeypatch.setenv("TLS_KEY", secret)
    with pytest.raises(ConfigError, match=r"\$\{TLS_KEY\}: wanted this to stand for a path") as raised:
        mlinfer.located("${TLS_KEY}")
    assert "Zm9v" not in "".join(traceback.format_exception(raised.value))
