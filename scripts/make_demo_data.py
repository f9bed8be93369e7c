"""Make the demo's sample from the flights table of nycflights13.

    python scripts/make_demo_data.py flights.parquet

A flight is in the sample if a digest of its id says so. The same input therefore gives the same sample in
any order, and cancelled flights stay in it as often as they happened.
"""

import argparse
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ONE_IN = 8
LIMIT = 1_000_000  # bytes, for all files together: they travel in every wheel
FILES = {  # file name: the months of 2013 it covers
    "train": range(1, 7),
    "unseen": [7],
    "2013-09": [9],
    "2013-10": [10],
    "2013-11": [11],
    "2013-12": [12],
}
SCHEMA = pa.schema(
    [
        pa.field("flight_id", pa.string()),
        pa.field("time", pa.timestamp("ms", tz="UTC")),  # scheduled departure
        pa.field("carrier", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("dest", pa.string()),
        pa.field("distance", pa.int64()),  # miles
        pa.field("sched_dep_minute", pa.int64()),  # since local midnight
        pa.field("dep_delay", pa.float64()),  # minutes; null: cancelled
        pa.field("arr_delay", pa.float64()),  # minutes; null: cancelled or diverted
    ]
)


def flight_ids(flights: pa.Table) -> pa.Array:
    """An airline uses a flight number once a day at one airport: UA1545-2013-01-01-EWR."""
    names = ("carrier", "flight", "year", "month", "day", "origin")
    rows = zip(*(flights[name].to_pylist() for name in names), strict=True)
    return pa.array(
        [
            f"{carrier}{flight}-{year}-{month:02}-{day:02}-{origin}"
            for carrier, flight, year, month, day, origin in rows
        ]
    )


def drawn(flight_id: str) -> bool:
    return int.from_bytes(hashlib.sha256(flight_id.encode()).digest()[:4]) % ONE_IN == 0


def sample(flights: pa.Table) -> pa.Table:
    ids = flight_ids(flights)
    assert len(ids.unique()) == len(ids), "two flights share an id"
    hour_began = pc.strptime(flights["time_hour"], "%Y-%m-%dT%H:%M:%SZ", "s")
    minutes = pc.multiply(flights["minute"], 60).cast(pa.duration("s"))
    table = pa.table(
        {
            "flight_id": ids,
            "time": pc.add(hour_began, minutes).cast(pa.timestamp("ms", tz="UTC")),
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "dest": flights["dest"],
            "distance": flights["distance"],
            "sched_dep_minute": pc.add(pc.multiply(flights["hour"], 60), flights["minute"]),
            # The public table marks a missing delay as null or, on its way through pandas, as NaN.
            "dep_delay": nan_to_null(flights["dep_delay"]),
            "arr_delay": nan_to_null(flights["arr_delay"]),
            "month": flights["month"],
        }
    )
    return table.filter(pa.array([drawn(flight_id) for flight_id in ids.to_pylist()]))


def nan_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(column), None, column)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("flights", type=Path, help="the flights table of nycflights13, as Parquet")
    parser.add_argument("--out", type=Path, default=Path("src/mlinfer/_demo/data"))
    arguments = parser.parse_args()

    chosen = sample(pq.read_table(arguments.flights))
    total = 0
    for name, months in FILES.items():
        part = chosen.filter(pc.is_in(chosen["month"], pa.array(months)))
        part = part.sort_by([("time", "ascending"), ("flight_id", "ascending")])
        path = arguments.out / f"{name}.parquet"
        pq.write_table(part.select(SCHEMA.names).cast(SCHEMA), path, compression="zstd", compression_level=19)
        size = path.stat().st_size
        total += size
        cancelled = part["dep_delay"].null_count
        print(f"{path}: {part.num_rows} flights, {cancelled} of them cancelled, {size} bytes")
    print(f"{total} bytes in all")
    assert total <= LIMIT, f"the sample is larger than {LIMIT} bytes"


if __name__ == "__main__":
    main()
