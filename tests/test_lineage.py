"""Every answer says where it comes from, if it is asked to: the same words in a run, in hand, in a preview and online."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mlinfer import Budget, ConfigError, InferencePipeline
from mlinfer._clock import SystemClock
from mlinfer._config import load_pipeline
from mlinfer._engine import LocalEngine
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource, MemorySource

ALL = ["record_id", "model_id", "model_version", "run_id", "inferred_at"]
NOW = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)


class Fixed(SystemClock):
    def now(self):
        return NOW


def double(x):
    if (x == 13).any():
        raise ValueError("thirteen")
    return np.where(x == 7, np.nan, 2 * x)


def host(version="1"):
    return FunctionHost(double, {"x": "float64"}, {"y": "float64"}, takes="numpy", version=version)


def pipeline(source, destination, lineage=ALL, **more):
    more = {"name": "p", "engine": LocalEngine(Fixed())} | more
    return InferencePipeline(source, more.pop("host", host()), destination, lineage=lineage, **more)


def lines(path, values):
    path.write_text("".join(json.dumps({"id": n, "x": x}) + "\n" for n, x in enumerate(values)))
    return JsonLinesSource(path)


def in_table(folder):
    with closing(sqlite3.connect(folder / "out.db")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM answers ORDER BY rowid")]


OUTPUTS = {
    "sqlite": (lambda folder: SqlDestination(f"sqlite:///{folder}/out.db", "answers"), in_table),
    "parquet": (
        lambda folder: ParquetDestination(folder / "out"),
        lambda folder: pl.read_parquet(folder / "out").to_dicts(),
    ),
    "jsonl": (
        lambda folder: JsonLinesDestination(folder / "out.jsonl"),
        lambda folder: pl.read_ndjson(folder / "out.jsonl").to_dicts(),
    ),
    "csv": (
        lambda folder: CsvDestination(folder / "out.csv"),
        lambda folder: pl.read_csv(
            folder / "out.csv", schema_overrides={"model_version": pl.String}
        ).to_dicts(),
    ),
}


@pytest.mark.parametrize(("make", "read"), OUTPUTS.values(), ids=OUTPUTS)
def test_every_kind_of_output_holds_the_lineage_of_each_answer(tmp_path, make, read):
    made = pipeline(lines(tmp_path / "in.jsonl", range(5)), make(tmp_path), keep=["id"])
    report = made.run()
    rows = read(tmp_path)
    assert list(rows[0]) == ["id", "y", *ALL]
    assert [(row["id"], row["y"]) for row in rows] == [(n, 2 * n) for n in range(5)]
    assert len({row["record_id"] for row in rows}) == 5
    assert all(row["record_id"].startswith("in.jsonl") for row in rows)
    assert {(row["model_id"], row["model_version"], row["run_id"]) for row in rows} == {
        ("double", "1", report.run)
    }
    times = {row["inferred_at"] for row in rows}
    assert {time if isinstance(time, datetime) else datetime.fromisoformat(time) for time in times} == {NOW}


def test_the_ids_stay_with_their_records_whatever_is_rejected_between_them(tmp_path):
    values = [float(n) for n in range(20)]
    values[3] = None  # refused before the model (conform), 13 by it (infer), 7 after it (answer)
    source = lines(tmp_path / "in.jsonl", values)
    kept, rejects = MemoryDestination(), MemoryDestination()
    pipeline(source, kept, ["record_id"], keep=["id"], rejects=rejects, budget=Budget(ratio=1)).run()
    everything = MemoryDestination()
    simple = FunctionHost(
        lambda x: np.ones(len(x)),
        pa.schema([("x", pa.float64())]),
        pa.schema([("y", pa.float64())]),
        takes="numpy",
        version="1",
    )
    InferencePipeline(source, simple, everything, name="q", keep=["id"], lineage=["record_id"]).run()
    names = dict(zip(everything.table()["id"].to_pylist(), everything.table()["record_id"].to_pylist(), strict=True))  # fmt: skip
    found = kept.table().select(["id", "record_id"]).to_pylist()
    assert [row["id"] for row in found] == [n for n in range(20) if n not in {3, 7, 13}]
    assert all(row["record_id"] == names[row["id"]] for row in found)
    assert sorted(rejects.table("rejects")["record_id"].to_pylist()) == sorted(names[n] for n in (3, 7, 13))


def test_a_run_asks_for_the_columns_it_names_in_their_order_and_for_no_others():
    place = MemoryDestination()
    pipeline(MemorySource({"x": [1.0]}), place, ["inferred_at", "model_version"]).run()
    assert place.table().schema.names == ["y", "inferred_at", "model_version"]
    plain = MemoryDestination()
    pipeline(MemorySource({"x": [1.0]}), plain, ()).run()
    assert plain.table().schema.names == ["y"]


def test_a_run_records_in_hand_a_preview_and_a_request_name_the_same_model(tmp_path):
    import httpx

    place, log = MemoryDestination(), tmp_path / "log.jsonl"
    source = MemorySource({"x": [1.0, 2.0, 3.0]})
    made = pipeline(source, place)
    made.run()
    ran = place.table()
    given, first = made.infer({"x": [1.0, 2.0, 3.0]}), made.preview(2)
    with pipeline(source, JsonLinesDestination(log)).serving() as server:
        asked = [httpx.post(f"{server.url}/predict", json=[{"x": 1.0}, {"x": 2.0}]).json() for _ in range(2)]
    asked = [row for rows in asked for row in rows]
    logged = pl.read_ndjson(log).to_dicts()
    assert given.schema.equals(ran.schema)
    for name in ("model_id", "model_version"):
        told = {*ran[name].to_pylist(), *given[name].to_pylist(), *first[name].to_pylist()}
        assert told | {row[name] for row in asked} == set(ran[name].to_pylist())
    assert first["record_id"].to_pylist() == ran["record_id"].to_pylist()[:2]
    assert [row["record_id"] for row in logged] == [row["record_id"] for row in asked]
    everybody = [*ran["record_id"].to_pylist(), *given["record_id"].to_pylist(), *(row["record_id"] for row in asked)]  # fmt: skip
    assert len(set(everybody)) == len(everybody) == 10
    assert {row["run_id"] for row in logged} == {row["run_id"] for row in asked}
    assert given["inferred_at"].to_pylist() == ran["inferred_at"].to_pylist() == [NOW] * 3


def test_a_record_that_has_no_answer_in_hand_has_no_lineage():
    made = pipeline(MemorySource({"x": [1.0]}), MemoryDestination())
    table = made.infer({"x": [1.0, None]}, on_reject="null")
    assert [value is None for value in table["model_version"].to_pylist()] == [False, True]


def test_the_identity_of_a_record_can_be_the_key_of_its_row(tmp_path):
    place = SqlDestination(f"sqlite:///{tmp_path}/out.db", "answers", key="record_id")
    made = pipeline(lines(tmp_path / "in.jsonl", range(3)), place, ["record_id"])
    made.run()
    made.run(from_start=True)
    assert [row["y"] for row in in_table(tmp_path)] == [0, 2, 4]


@pytest.mark.parametrize(
    ("lineage", "keep", "told"),
    [
        (["when"], (), "lineage: wanted some of record_id, model_id, .*, found 'when'"),
        ("run_id", (), r"lineage: wanted a list of columns, .*write lineage=\['run_id'\]"),
        (["run_id"], ["run_id"], "'run_id' would bear the name of a kept column; rename"),
        (["model_id"], (), "'model_id' would bear the name of an answer of the model; rename"),
    ],
)
def test_names_that_nobody_knows_or_that_are_taken_are_refused(lineage, keep, told):
    answers = {"y": "float64", "model_id": "float64"} if "answer" in told else {"y": "float64"}
    clashing = FunctionHost(lambda x: dict.fromkeys(answers, x), {"x": "float64"}, answers, takes="numpy", version="1")  # fmt: skip
    source, place = MemorySource({"x": [1.0], "run_id": ["mine"]}), MemoryDestination()
    with pytest.raises(ConfigError, match=told):
        pipeline(source, place, lineage, keep=keep, host=clashing).run()
    assert place.table().num_rows == 0


def test_a_file_asks_for_it_by_the_same_names(tmp_path):
    text = 'name = "p"\nlineage = ["record_id", "model_version"]\nsource = { type = "memory", data = { x = [1.0] } }\n'
    text += 'destination = { type = "memory" }\nhost = { type = "function", function = "math:sqrt", inputs = { x = "double" }, outputs = { y = "double" } }\n'
    (tmp_path / "p.toml").write_text(text)
    made = load_pipeline(tmp_path / "p.toml", allow=["math:sqrt"])
    assert made.job.lineage == ["record_id", "model_version"]
    assert made.explain().layout.output.names == ["y", "record_id", "model_version"]
