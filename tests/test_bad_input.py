"""Bad input at the command line: what was wanted, what was found, what to do; an exit code; nothing half-written."""

import contextlib
import gzip
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer._cli import main

MLINFER = str(Path(sys.executable).parent / "mlinfer")
PIPELINE = """
name = "p"
keep = ["id"]

[source]
type = "{kind}"
path = "{path}"

[host]
type = "function"
function = "models_for_bad_input:{model}"
inputs = {{ x = "double" }}
outputs = {{ y = "double" }}
takes = "numpy"

[destination]
type = "parquet"
path = "out"
"""
REJECTS = """
[rejects]
type = "jsonl"
path = "rejects.jsonl"
"""
MODELS = """
import time
import numpy as np

def same(x):
    return x

def down(x):
    raise ValueError("the model is down")

def picky(x):
    if (x == 3).any():
        raise ValueError("no threes")
    return x

def short(x):
    return x[:-1]

def texts(x):
    return x.astype(str)

def nothing(x):
    return np.where(x == 3, np.nan, x)

def greedy(x):
    x[:] = 0
    return x

def stuck(x):
    if (x == 3).any():
        time.sleep(600)  # in C: no signal handler of Python's and no thread can end it
    return x
"""
LINES = "x,id\n" + "".join(f"{n}.0,r{n}\n" for n in range(5))
ALL = [f"r{n}" for n in range(5)]


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


PARQUET = parquet(x=[0.0, 1.0, 2.0, 3.0, 4.0], id=ALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "models_for_bad_input", raising=False)
    (tmp_path / "models_for_bad_input.py").write_text(MODELS)
    (tmp_path / "in").mkdir()
    return tmp_path


def define(file, data, model="same", more=REJECTS):
    if data is not None:
        Path("in", file).write_bytes(data.encode() if isinstance(data, str) else data)
    kind = Path(file).suffixes[0][1:]
    Path("pipeline.toml").write_text(PIPELINE.format(kind=kind, path=f"in/{file}", model=model) + more)


def run(capsys, *more, model="same"):
    code = main(["run", "pipeline.toml", "--no-progress", "--allow", f"models_for_bad_input:{model}", *more])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return code, err


def delivered():
    found = pq.read_table("out").column("id").to_pylist() if list(Path("out").glob("*.parquet")) else []
    assert len(set(found)) == len(found)
    return found


def rejected():
    path = Path("rejects.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("file", "data", "code", "wanted", "found", "advice"),
    [
        ("a.csv", None, 2, "wanted files at 'in/a.csv'", "found no file", "correct the path"),
        ("a.parquet", b"", 4, "a.parquet: wanted a Parquet file", "found an empty file", "restore it"),
        ("a.csv", "", 2, "wanted the names of the columns", "found an empty file", "first line of in/a.csv"),
        ("a.csv", "x,id\n", 2, "keep: the first records of CsvSource(path='in/a.csv'", "there are none", "keep = { id ="),
        ("a.csv", LINES.replace(",", ";"), 2, "separated by ','", "found a single column", "delimiter = ';'"),
        (
            "a.csv.gz", gzip.compress(LINES.encode())[:-9], 4,
            "a.csv.gz: wanted to read on at byte", "cut or damaged", "restore it",
        ),
        ("a.csv", gzip.compress(LINES.encode(), mtime=0), 2, "wanted names of columns", "found a compressed file", "ends in .csv.gz"),
        ("a.csv", pa.compress(LINES.encode(), "zstd", asbytes=True), 2, "wanted names of columns", "found a compressed file", "ends in .csv.zst"),
        ("a.csv", PARQUET, 2, "field 'header row': wanted names of columns", "found a Parquet file", "ParquetSource"),
        ("a.parquet", PARQUET[:-20], 4, "a.parquet: wanted a Parquet file", "corrupted", "restore it"),
        ("a.csv", LINES.replace("x,id", "id,z"), 2, "field 'x': wanted double", "columns there are: id, z", "rename"),
        ("a.parquet", parquet(x=[b"a"], id=["r0"]), 2, "field 'x': wanted double", "found binary", "convert"),
    ],
    ids=["missing", "empty", "empty csv", "header only", "delimiter", "cut gzip", "gzip as csv", "zstd as csv", "parquet as csv", "cut parquet", "other column", "other type"],
)  # fmt: skip
def test_an_unusable_file_says_what_was_wanted_what_was_found_and_what_to_do(
    folder, capsys, *, file, data, code, wanted, found, advice
):
    define(file, data)
    ended, err = run(capsys)
    assert ended == code
    assert wanted in err
    assert found in err
    assert advice in err
    assert delivered() == rejected() == []
    good = PARQUET if file.endswith("parquet") else LINES
    Path("in", file).write_bytes(
        gzip.compress(good.encode())
        if file.endswith("gz")
        else good.encode()
        if file.endswith("csv")
        else good
    )
    assert run(capsys)[0] == 0
    assert delivered() == ALL


@pytest.mark.parametrize(
    ("file", "data", "ids"),
    [
        ("a.csv", "x,id\n0,r0\n", ["r0"]),
        ("a.csv", LINES[:-1], ALL),
        ("a.csv", "\ufeff" + LINES, ALL),
        ("a.csv", LINES.replace("\n", "\r\n"), ALL),
        ("a.csv", "id,x\nr0,0\nr1,1\n", ["r0", "r1"]),
        ("a.csv", "x,id,more\n0,r0,z\n", ["r0"]),
        ("a.parquet", parquet(x=[0, 1], id=["r0", "r1"]), ["r0", "r1"]),
    ],
    ids=["one row", "no newline", "mark", "crlf", "reordered", "added", "integers"],
)
def test_an_unusual_file_is_read(folder, capsys, *, file, data, ids):
    define(file, data)
    assert run(capsys) == (0, "")
    assert delivered() == ids
    assert rejected() == []


@pytest.mark.parametrize(
    ("data", "model", "bad", "reason"),
    [
        ("x,id\n,r0\n1,r1\n", "same", ["a.csv#2"], "field 'x': wanted a value (double), found none"),
        ("x,id\nnan,r0\n1,r1\n", "same", ["a.csv#2"], "field 'x': wanted a value (double), found none"),
        ("x,id\ninf,r0\n1,r1\n", "same", ["a.csv#2"], "the model's answer 'y' is missing or not a finite number"),
        (b"x,id\n0,r\xff\n1,r1\n", "same", ["a.csv#2"], "column 'id': wanted string, found"),
        (b"x,id\n0,r\xff,\n1,r1\n", "same", ["a.csv#2"], "wanted 2 columns, found 3"),
        (b"x,id\n\xff\n1,\xc3\xa4\n", "same", ["a.csv#2"], "wanted 2 columns, found 1"),
        (LINES, "nothing", ["a.csv#5"], "the model's answer 'y' is missing or not a finite number"),
        (LINES, "picky", ["a.csv#5"], "ValueError: no threes"),
        (LINES, "down", [f"a.csv#{line}" for line in range(2, 7)], "ValueError: the model is down"),
    ],
    ids=["null", "nan", "infinity", "not utf-8", "not utf-8 and too long", "not utf-8 and too short", "no answer", "raises for one", "raises for all"],
)  # fmt: skip
def test_a_bad_record_is_named_and_without_a_place_for_it_the_run_ends_with_3(
    folder, capsys, *, data, model, bad, reason
):
    define("a.csv", data, model, more="")
    code, err = run(capsys, model=model)
    assert code == 3
    assert f"no place for them; the first: record {bad[0]} (" in err
    assert reason in err
    assert "name a destination for them with [rejects]" in err
    assert delivered() == []
    define("a.csv", data, model)
    code, err = run(capsys, model=model)
    assert (code, "every record" in err) == ((3, True) if len(bad) == len(ALL) else (0, False))
    assert [reject["record_id"] for reject in rejected()] == bad
    assert all(reason in reject["message"] for reject in rejected())
    text = data if isinstance(data, str) else data.decode(errors="replace")
    assert len(delivered()) == text.count("\n") - 1 - len(bad)


@pytest.mark.parametrize(
    ("model", "wanted", "found", "advice"),
    [
        ("short", "wanted 5 answers for 5 records", "found 4", "must answer each record once"),
        ("texts", "wanted answers 'y' of type double", "found", "outputs"),
        ("greedy", "wanted a model that leaves its input as it is", "writes into it", "x.copy()"),
    ],
)
def test_a_model_that_breaks_its_word_ends_the_run_with_4(folder, capsys, *, model, wanted, found, advice):
    define("a.csv", LINES, model)
    code, err = run(capsys, model=model)
    assert code == 4
    assert wanted in err
    assert found in err
    assert advice in err
    assert delivered() == rejected() == []


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (("[source]", 'kept = ["id"]\n[source]'), ("kept", "keep")),
        (('path = "out"', 'path = "out"\ncompresion = "zstd"'), ("compresion", "compression")),
        (('type = "parquet"', 'type = "delta"'), ("'delta'", "installed:", "parquet")),
    ],
    ids=["key", "parameter", "plugin"],
)
def test_an_unknown_name_in_a_definition_ends_with_2_and_lists_the_known_ones(folder, capsys, edit, parts):
    define("a.csv", LINES)
    path = Path("pipeline.toml")
    path.write_text(path.read_text().replace(*edit))
    code, err = run(capsys)
    assert code == 2
    assert [part for part in parts if part not in err] == []
    assert not Path("out").exists()


def test_a_table_with_other_columns_ends_with_2_and_is_left_alone(folder, capsys):
    with contextlib.closing(sqlite3.connect("out.db")) as connection:
        connection.execute("CREATE TABLE scores (other INTEGER)")
        connection.execute("INSERT INTO scores VALUES (7)")
        connection.commit()
    define("a.csv", LINES)
    path = Path("pipeline.toml")
    sql = 'type = "sql"\nurl = "sqlite:///out.db"\ntable = "scores"\nif_exists = "append"'
    path.write_text(path.read_text().replace('type = "parquet"\npath = "out"', sql))
    code, err = run(capsys)
    assert code == 2
    assert "scores" in err
    with contextlib.closing(sqlite3.connect("out.db")) as connection:
        assert connection.execute("SELECT * FROM scores").fetchall() == [(7,)]


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ("", ("allow_code_format", "sha256")),
        ('allow_code_format = "pickle"\nsha256 = "' + "0" * 64 + '"\n', ("wanted the SHA-256 000", "restore it")),
    ],
    ids=["no leave", "other digest"],
)  # fmt: skip
def test_a_pickle_without_leave_or_of_another_digest_ends_with_2_and_is_not_run(folder, capsys, keys, parts):
    Path("model.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    host = f'type = "sklearn"\nmodel = "model.pkl"\n{keys}'
    define("a.csv", LINES)
    path = Path("pipeline.toml")
    start, _, rest = path.read_text().partition("[host]\n")
    path.write_text(f"{start}[host]\n{host}[destination]{rest.partition('[destination]')[2]}")
    code, err = run(capsys)
    assert code == 2
    assert "model.pkl" in err
    assert [part for part in parts if part not in err] == []
    assert not Path("ran").exists()
    assert delivered() == []


def test_a_full_disk_ends_with_4_and_the_next_run_delivers_everything(folder):
    define("a.csv", "x,id\n" + "".join(f"{n}.5,{'r' * 40}{n}\n" for n in range(20_000)), more="")
    command = [MLINFER, "run", "pipeline.toml", "--no-progress", "--allow", "models_for_bad_input:same"]
    limited = ["bash", "-c", 'ulimit -f 16; exec "$@"', "limited", *command]
    found = subprocess.run(limited, capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == 4, found.stderr
    assert "out" in found.stderr
    assert "Traceback" not in found.stderr
    assert delivered() == []
    assert subprocess.run(command, capture_output=True, timeout=100, check=False).returncode == 0
    assert len(delivered()) == 20_000


def test_a_model_that_hangs_is_ended_soon_after_its_timeout_and_the_record_is_named(folder):
    define("a.csv", "x,id\n3,r3\n4,r4\n", "stuck")
    path = Path("pipeline.toml")
    path.write_text(
        "timeout = 5\n" + path.read_text()
    )  # no other call takes so long, however busy the machine
    found = subprocess.run(
        [MLINFER, "run", "pipeline.toml", "--no-progress", "--allow", "models_for_bad_input:stuck"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "Traceback" not in found.stderr
    assert found.returncode == 0, found.stderr
    assert [reject["record_id"] for reject in rejected()] == ["a.csv#2"]
    assert "no answer within 5 s" in rejected()[0]["message"]
    assert delivered() == ["r4"]
