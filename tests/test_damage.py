"""Progress that was damaged, cut, or written by another version is refused by name: no run begins again in silence.

`tests/formats/N` holds what mlinfer wrote in format N, as it was. A new format gets a folder beside it and both are read.
"""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mlinfer import ChangedError, InferencePipeline, MlinferError, Scope, durable
from mlinfer.destinations import ParquetDestination, SqlDestination
from mlinfer.destinations._appended import sidecar_of
from mlinfer.destinations._parquet_parts import survey
from torture.power_loss import RECORDS, Numbers, expected, model, outcome, pipeline

FORMATS = Path(__file__).parent / "formats"
KINDS = ("parquet", "jsonl", "csv", "checkpoint", "sqlite")
HALF = RECORDS // 2


def build(kind, folder, count):
    """The pipeline of this kind, reading so many records."""
    if kind != "sqlite":
        return pipeline(kind, folder, Numbers(count))
    destination = SqlDestination(f"sqlite:///{folder}/out.db", table="scores")
    return InferencePipeline(Numbers(count), model, destination, name="p", keep=["id"])


def stored(kind, folder):
    """What is at the destination, read without mlinfer."""
    if kind != "sqlite":
        return outcome(kind, folder)
    with sqlite3.connect(folder / "out.db") as connection:
        return connection.execute("SELECT id, y FROM scores ORDER BY rowid").fetchall()


def file_of(kind, folder):
    """The file that holds the progress."""
    new = folder / "new"
    return {
        "parquet": lambda: next((new / "out").glob("*.parquet")),
        "jsonl": lambda: sidecar_of(new / "out.jsonl"),
        "csv": lambda: sidecar_of(new / "out.csv"),
        "checkpoint": lambda: new / "p.progress",
        "sqlite": lambda: folder / "out.db",
    }[kind]()


def judged(kind, folder, original):
    """Run over damaged progress: True if it was refused by name, False if it did no harm; anything else fails."""
    before = stored(kind, folder) if kind in {"jsonl", "csv"} else None
    place = file_of(kind, folder)
    damaged = place.read_bytes()
    try:
        report = build(kind, folder, HALF).run()
    except MlinferError as error:
        text = str(error)
        assert str(place.parent if kind == "parquet" else place) in text or str(folder / "new") in text, text
        assert any(
            word in text for word in ("restore", "reset", "from_start", "remove it", "rename", "upgrade")
        ), text
        assert place.read_bytes() == damaged
        assert before is None or stored(kind, folder) == before
        return True
    assert report.delivered == 0, f"began again in silence: {damaged!r}"
    assert stored(kind, folder) == expected(HALF)
    for path in folder.rglob("part-*.parquet"):
        if path != place:
            path.unlink()
    place.write_bytes(original)
    return False


@pytest.fixture
def made(tmp_path):
    """Make an output of a kind, with half of the records."""

    def make(kind):
        assert build(kind, tmp_path, HALF).run().delivered == HALF
        return file_of(kind, tmp_path).read_bytes()

    return make


@pytest.mark.parametrize("kind", ["checkpoint", "jsonl", "csv"])
def test_every_changed_byte_and_every_cut_of_small_files(kind, tmp_path, made):
    original, noticed = made(kind), 0
    place = file_of(kind, tmp_path)
    damages = [
        original[:n] + bytes([original[n] ^ (1 << n % 8)]) + original[n + 1 :] for n in range(len(original))
    ]
    damages += [original[:n] for n in range(len(original))]
    for damaged in damages:
        place.write_bytes(damaged)
        noticed += judged(kind, tmp_path, original)
        place.write_bytes(original)
    assert noticed > 0.95 * len(damages)


def footer(content):
    """Where the footer of a Parquet file begins."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")


@pytest.mark.parametrize("if_exists", ["fail", "append"])
def test_every_changed_byte_of_a_parquet_footer(if_exists, tmp_path, made):
    """With `append`, a part whose mark is gone could be taken for somebody else's."""
    original = made("parquet")
    place, noticed = file_of("parquet", tmp_path), 0
    recipe = ParquetDestination(tmp_path / "new" / "out", if_exists=if_exists)
    schema = survey(place.parent, ("p", "main"))[0][-1].mark.schema
    with recipe.open(schema, Scope("p", read_only=True)) as writer:
        wanted = writer.committed()
    assert wanted.positions
    begin = footer(original)
    for n in range(begin, len(original)):
        place.write_bytes(original[:n] + bytes([original[n] ^ (1 << n % 8)]) + original[n + 1 :])
        try:
            with recipe.open(schema, Scope("p", read_only=True)) as writer:
                assert writer.committed() == wanted, f"began again in silence: byte {n} of {len(original)}"
        except MlinferError as error:
            assert str(place.parent) in str(error)  # noqa: PT017 - some bytes do no harm
            noticed += 1
    assert noticed > (len(original) - begin) / 2


def test_every_cut_of_a_part(tmp_path, made):
    original = made("parquet")
    place = file_of("parquet", tmp_path)
    for length in range(len(original)):
        place.write_bytes(original[:length])
        assert judged("parquet", tmp_path, original), length


SQL = (
    "pipeline",
    "output",
    '"partition"',
    "position",
    "state",
    "fingerprint",
    "epoch",
    "version",
    "checksum",
)


@pytest.mark.parametrize("column", SQL)
def test_every_changed_byte_and_cut_of_a_row_of_progress(column, tmp_path, made):
    made("sqlite")
    path = tmp_path / "out.db"
    with sqlite3.connect(path, isolation_level=None) as connection:
        (value,) = connection.execute(f"SELECT {column} FROM mlinfer_progress").fetchone()
        for damaged in damages_of(value):
            connection.execute(f"UPDATE mlinfer_progress SET {column} = ?", (damaged,))
            with pytest.raises(ChangedError, match=r"out.db: wanted .*(restore the database|upgrade)"):
                build("sqlite", tmp_path, HALF).run()
            assert stored("sqlite", tmp_path) == expected(HALF)
            connection.execute(f"UPDATE mlinfer_progress SET {column} = ?", (value,))
    assert build("sqlite", tmp_path, HALF).run().delivered == 0


@pytest.mark.parametrize("whose", ["ours", "another's"])
@pytest.mark.parametrize("version", [b"1", "one", None])
def test_a_version_that_is_no_number_is_damage(version, whose, tmp_path, made):
    made("sqlite")
    with sqlite3.connect(tmp_path / "out.db") as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'version INTEGER NOT NULL', 'version')"
        )
    with sqlite3.connect(tmp_path / "out.db") as connection:
        connection.execute("UPDATE mlinfer_progress SET version = ?", (version,))
        if whose != "ours":
            connection.execute("UPDATE mlinfer_progress SET pipeline = 'q'")
    with pytest.raises(ChangedError, match=r"out.db: wanted .*restore the database"):
        build("sqlite", tmp_path, HALF).run()


@pytest.mark.parametrize("column", ["fingerprint", "position", '"partition"', "checksum", "output"])
def test_a_text_that_is_none_is_damage(column, tmp_path, made):
    made("sqlite")
    with sqlite3.connect(tmp_path / "out.db") as connection:
        connection.execute(f"UPDATE mlinfer_progress SET {column} = CAST(X'41ff42' AS TEXT)")
    with pytest.raises(MlinferError, match=r"out.db"):
        build("sqlite", tmp_path, HALF).run()


def test_a_message_of_sqlite_that_is_no_text_is_damage(tmp_path, made):
    """SQLite quotes what it finds in a damaged schema, whatever bytes these are."""
    original, decoding = made("sqlite"), []
    at = original.index(b"CREATE TABLE mlinfer_progress")
    for n in range(at, at + 120):
        (tmp_path / "out.db").write_bytes(original[:n] + bytes([original[n] ^ 0x80]) + original[n + 1 :])
        try:
            build("sqlite", tmp_path, HALF).run()
        except MlinferError as error:
            assert "out.db" in str(error)  # noqa: PT017 - some bytes do no harm
            decoding.append(isinstance(error.__cause__, UnicodeDecodeError))
    assert any(decoding)


def damages_of(value):
    """Every byte changed and every cut."""
    if value is None:
        return [b"\0"]
    if isinstance(value, int):
        return [value ^ (1 << bit) for bit in range(8)]
    changed = [value[:n] + chr(ord(value[n]) ^ (1 << n % 7)) + value[n + 1 :] for n in range(len(value))]
    return changed + [value[:n] for n in range(len(value))]


# --- formats -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", sorted(path.name for path in FORMATS.iterdir()))
def test_progress_of_every_format_so_far_is_read(kind, version, tmp_path):
    shutil.copytree(FORMATS / version / kind, tmp_path, dirs_exist_ok=True)
    assert stored(kind, tmp_path) == expected(HALF)
    assert build(kind, tmp_path, RECORDS).run().delivered == RECORDS - HALF
    assert stored(kind, tmp_path) == expected()


def newer(kind, folder):
    """Turn the progress into what a mlinfer of the next format could have written."""
    place = file_of(kind, folder)
    if kind == "sqlite":
        with sqlite3.connect(place) as connection:
            connection.execute("UPDATE mlinfer_progress SET version = version + 1")
        return
    if kind == "parquet":
        table = pq.read_table(place)
        metadata = pq.read_metadata(place).metadata
        mark = {b"mlinfer": resealed(metadata[b"mlinfer"]), b"ARROW:schema": metadata[b"ARROW:schema"]}
        with pq.ParquetWriter(place, table.schema.remove_metadata(), store_schema=False) as writer:
            writer.write_table(table.replace_schema_metadata(None))
            writer.add_key_value_metadata(mark)
        return
    place.write_bytes(resealed(place.read_bytes()))


def resealed(text):
    """An envelope of the next format, intact."""
    kind, body = next((key, body) for key, body in json.loads(text).items() if key != "sha256")
    return (
        durable.Envelope(kind, body["format"] + 1, "").seal({**body, "format": body["format"] + 1}).encode()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_progress_of_a_newer_format_is_refused_with_the_way_out(kind, tmp_path, made):
    made(kind)
    newer(kind, tmp_path)
    with pytest.raises(
        ChangedError, match="a newer mlinfer wrote it; upgrade mlinfer: pip install --upgrade mlinfer"
    ):
        build(kind, tmp_path, RECORDS).run()


if __name__ == "__main__":  # python tests/test_damage.py FORMAT: keep what this version writes
    for one in KINDS:
        target = FORMATS / sys.argv[1] / one
        target.mkdir(parents=True)
        build(one, target, HALF).run()
