"""Which files a path means, and that a file keeps its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mlinfer import ConfigError
from mlinfer.sources._listing import file_of, list_files


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(path: object, *suffixes: str) -> list[str]:
    return [name for name, _ in list_files(path, suffixes)]  # type: ignore[arg-type]


def test_a_directory_means_all_files_below_it_with_the_suffix_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.parquet", "a.parquet", "2024/c.PARQUET", "notes.txt")
    assert names(tmp_path, ".parquet") == ["2024/c.PARQUET", "a.parquet", "b.parquet"]


def test_hidden_private_and_unfinished_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv", ".b.csv", "_c.csv", "d.csv.tmp", "e.csv.part", "_temporary/f.csv", ".git/g.csv")
    assert names(tmp_path) == ["a.csv"]
    assert names(tmp_path / "*.csv*") == ["a.csv"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", ["a.csv"]),
        ("**/*.csv", ["a.csv", "x/b.csv", "x/y/c.csv"]),
        ("x/*.csv", ["b.csv"]),
        ("x/**/*.csv", ["b.csv", "y/c.csv"]),
        ("*/b.csv", ["x/b.csv"]),
        ("[ab].csv", ["a.csv"]),
    ],
)
def test_a_glob_names_files_from_its_first_wildcard_on(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    touch(tmp_path, "a.csv", "x/b.csv", "x/y/c.csv", "x/y/d.txt")
    assert names(tmp_path / pattern) == found


def test_one_file_is_named_by_its_file_name_whatever_it_ends_in(tmp_path: Path) -> None:
    touch(tmp_path, "x/_data.bin")
    assert list_files(tmp_path / "x/_data.bin", [".csv"]) == [("_data.bin", tmp_path / "x/_data.bin")]


def test_a_file_whose_name_looks_like_a_glob_is_taken_as_it_is_spelled(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].csv", "a1.csv")
    assert names(tmp_path / "a[1].csv") == ["a[1].csv"]


def test_names_stay_when_the_folder_moves(tmp_path: Path) -> None:
    touch(tmp_path, "old/x/a.csv", "old/b.csv")
    before = names(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert names(tmp_path / "new") == before == names(tmp_path / "new/**/*.csv")


@pytest.mark.parametrize("path", ["", "one.csv", "*.csv", "**/*.csv"])
def test_every_listed_file_is_found_again_by_its_name(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "one.csv", "x/two.csv", "x/x/two.csv", "one/one.csv")
    listed = list_files(tmp_path / path, [".csv"])
    assert listed
    assert [(name, file_of(tmp_path / path, name)) for name, _ in listed] == listed


def test_directories_and_dangling_links_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "dangling.csv").symlink_to("nowhere")
    touch(tmp_path, "a.csv")
    (tmp_path / "linked.csv").symlink_to("a.csv")
    assert names(tmp_path) == names(tmp_path / "*.csv") == ["a.csv", "linked.csv"]


def test_a_link_to_a_folder_above_does_not_make_the_listing_endless(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    (tmp_path / "loop").symlink_to(tmp_path)
    touch(tmp_path, "below/b.csv")
    (tmp_path / "below/up").symlink_to("..")
    assert names(tmp_path) == ["a.csv", "below/b.csv"]


def test_a_link_to_a_folder_above_does_not_give_every_file_many_times(tmp_path: Path) -> None:
    touch(tmp_path, "a.csv")
    touch(tmp_path, "below/b.csv")
    touch(tmp_path.with_name("beside"), "c.csv")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "below/up").symlink_to("..")
    (tmp_path / "beside").symlink_to(tmp_path.with_name("beside"))
    assert names(tmp_path / "**/*.csv") == ["a.csv", "below/b.csv", "beside/c.csv"]
    assert names(tmp_path / "*/*.csv") == ["below/b.csv", "beside/c.csv", "loop/a.csv"]
    assert names(tmp_path / "loop/**/*.csv") == names(tmp_path / "**/*.csv")


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", ["nowhere", "nowhere/*.csv", "nowhere/a.csv"])
def test_a_missing_directory_is_an_error_that_says_so(tmp_path: Path, path: str, follow: bool) -> None:
    with pytest.raises(ConfigError, match=r"wanted files at .*nowhere.*found no file or directory .*nowhere"):
        list_files(tmp_path / path, follow=follow)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=re.escape(f"found no file or directory '{Path('in.csv').absolute()}'")
    ):
        list_files("in.csv")


@pytest.mark.parametrize("path", ["", "*.csv"])
def test_an_empty_directory_is_an_error_unless_files_may_come_later(tmp_path: Path, path: str) -> None:
    touch(tmp_path, ".hidden.csv")
    with pytest.raises(
        ConfigError, match=r"wanted files.* at .*, found none; correct the path \(names that begin"
    ):
        list_files(tmp_path / path, [".csv"])
    assert list_files(tmp_path / path, [".csv"], follow=True) == []


def test_a_name_that_is_not_utf8_is_an_error_that_shows_its_bytes(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv"))).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"wanted file names in UTF-8, found b'caf\\xe9.csv'"):
        list_files(tmp_path)


def test_a_folder_that_may_not_be_read_is_an_error_and_not_an_empty_one(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.csv", "closed/b.csv")
    tmp_path.chmod(0o755)
    (tmp_path / "closed").chmod(0o311)
    monkeypatch.chdir(tmp_path)
    root = os.geteuid() == 0
    if root:  # nothing is closed to root
        os.seteuid(65_534)
    try:
        for path in (".", "closed", "closed/*.csv"):
            with pytest.raises(
                ConfigError, match=r"wanted to list '.*closed', found Permission denied; allow this user"
            ):
                list_files(path)
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o755)
