"""Secrets come from the environment and from files, once, and never show in errors."""

import pytest

import mlinfer
from mlinfer import ConfigError


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
