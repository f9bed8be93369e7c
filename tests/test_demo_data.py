"""The sample flights that travel with the package are what their README says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

DATA = Path(__file__).parents[1] / "src/mlinfer/_demo/data"
MONTHS = {
    "train": {1, 2, 3, 4, 5, 6},
    "unseen": {7},
    "2013-09": {9},
    "2013-10": {10},
    "2013-11": {11},
    "2013-12": {12},
}


def test_the_files_are_exactly_the_documented_ones_and_small():
    files = list(DATA.glob("*.parquet"))
    assert {file.stem for file in files} == set(MONTHS)
    assert sum(file.stat().st_size for file in files) <= 1_000_000


def test_no_flight_appears_twice():
    ids = pa.chunked_array([chunk for name in MONTHS for chunk in read(name)["flight_id"].chunks])
    assert len(ids.unique()) == len(ids)


@pytest.mark.parametrize("name", MONTHS)
def test_a_file_covers_its_months(name):
    new_york = read(name)["time"].cast(pa.timestamp("ms", tz="America/New_York"))
    assert set(pc.month(new_york).to_pylist()) == MONTHS[name]


@pytest.mark.parametrize("name", MONTHS)
def test_a_cancelled_flight_has_no_delays_and_a_known_flight_has_everything_else(name):
    table = read(name)
    cancelled = pc.is_null(table["dep_delay"])
    assert 0 < pc.sum(cancelled).as_py() < 0.1 * table.num_rows
    assert table.filter(cancelled)["arr_delay"].null_count == pc.sum(cancelled).as_py()
    assert not pc.any(pc.is_nan(table["arr_delay"])).as_py()
    assert all(table[column].null_count == 0 for column in table.column_names if "_delay" not in column)


@pytest.mark.parametrize("name", MONTHS)
def test_every_file_has_the_same_plain_types(name):
    assert {field.name: str(field.type) for field in read(name).schema} == {
        "flight_id": "string",
        "time": "timestamp[ms, tz=UTC]",
        "carrier": "string",
        "origin": "string",
        "dest": "string",
        "distance": "int64",
        "sched_dep_minute": "int64",
        "dep_delay": "double",
        "arr_delay": "double",
    }


def read(name):
    return pq.read_table(DATA / f"{name}.parquet")
