"""Many ways of asking, one path: a run, records in hand and requests of every kind give the same answers and refuse the same records."""

import json
import math
import random
import re
import string
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlinfer import Batching, Budget, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.sources import JsonLinesSource, MemorySource, ParquetSource

CORPUS = Path(__file__).parents[2] / "shared" / "corpora" / "naughty_strings.json"
COUNT, REQUEST = 10_000, 611
KEEP = {"id": pa.int64(), "when": pa.timestamp("us", "UTC"), "note": pa.string()}
ARROW = pa.schema(
    [
        ("id", pa.int64()),
        ("age", pa.float64()),
        ("income", pa.float64()),
        ("tenure", pa.int64()),  # the model wants a float
        ("visits", pa.float64()),  # the model wants an int32
        ("city", pa.string()),
        ("note", pa.string()),
        ("when", pa.timestamp("us", "UTC")),
    ]
)


def generated():
    """Records as a list of dicts, and the kind of refusal that each bad one deserves."""
    dice = random.Random(7)
    notes = json.loads(CORPUS.read_text("utf-8")) if CORPUS.exists() else list(string.printable)
    start = datetime(2024, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    rows, bad = [], {}
    for n in range(COUNT):
        row = {
            "id": n,
            "age": dice.choice([None, dice.randint(18, 90), dice.uniform(18, 90)]),
            "income": dice.choice([dice.gauss(3e4, 1e4), dice.randint(0, 10**5), 0.1 + 0.2, 2**53 + 1]),
            "tenure": dice.randint(0, 40),
            "visits": dice.randint(0, 9),
            "city": dice.choice(["Ulm", "Köln", "Bonn", None, "", dice.choice(notes)]),
            "note": dice.choice(notes),
            "when": start + timedelta(seconds=n * 86_399, microseconds=n),
        }
        if n % 100 == 7:
            wrong = [{"income": None}, {"income": float("nan")}, {"visits": 2.5}, {"visits": 2**40}][
                n // 100 % 4
            ]
            bad[n] = "missing_value" if "income" in wrong else "wrong_type"
            row |= wrong
        rows.append(row)
    return rows, bad


ROWS, BAD = generated()
TABLE = pa.table({field.name: [row[field.name] for row in ROWS] for field in ARROW if field.name != "income"} | {
    "income": np.array([row["income"] for row in ROWS], float)}).select(ARROW.names).cast(ARROW)  # fmt: skip


def plain(value):
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and math.isnan(value) else value


def as_json(row):
    """A record as a stranger would send it: there is no NaN in JSON, and times are texts."""
    return json.dumps(
        {name: plain(value) for name, value in row.items()},
        ensure_ascii=False,
        allow_nan=False,
    )


@pytest.fixture(scope="module")
def host():
    example = pd.DataFrame(
        {
            "age": [20.5, None, 40.0, 61.0] * 5,
            "income": np.linspace(1e4, 5e4, 20),
            "tenure": np.arange(20.0),
            "visits": np.arange(20, dtype="int32") % 7,
            "city": ["Ulm", "Köln", None, "Bonn"] * 5,
            "note": ["a b", "c", "", "null"] * 5,
        }
    )
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            (StandardScaler(), ["income", "tenure", "visits"]),
            (OneHotEncoder(handle_unknown="ignore"), ["city"]),
            (HashingVectorizer(n_features=32, analyzer="char", norm=None), "note"),
        ),
        LogisticRegression(),
    ).fit(example, ["no", "yes", "perhaps", "no"] * 5)
    return SklearnHost(model, example=example, method=("predict", "predict_proba"), expand=True)


def pipeline(source, host, **more):
    return InferencePipeline(source, host, MemoryDestination(), name="parity", keep=KEEP, **more)


def ran(source, host):
    """The answers of a run, and why which records were refused."""
    rejects = MemoryDestination()
    made = pipeline(source, host, rejects=rejects, batching=Batching(max_records=257), budget=Budget(ratio=1))
    made.run()
    found = {
        json.loads(one["raw"] or one["record"])["id"]: one["kind"]
        for one in rejects.table("rejects").to_pylist()
    }
    return made.job.destination.table(), found


def in_hand(data, host):
    with pipeline(MemorySource(TABLE), host) as made:
        found = made.infer(data, on_reject="null")
    ok = pa.compute.equal(found["status"], "ok")
    refused = {n: kind for n, kind in enumerate(found["status"].to_pylist()) if kind != "ok"}
    return found.filter(ok).drop_columns(["status", "status_detail"]), refused


def requested(host):
    """Requests with a bad record are refused whole: the client leaves out what was named and asks again."""
    made = pipeline(MemorySource(TABLE), host)
    answers, refused = [], {}
    with made.serving() as server, httpx.Client(base_url=server.url) as client:

        def ask(rows):
            body = f"[{','.join(map(as_json, rows))}]".encode()
            return client.post("/predict", content=body, headers={"Content-Type": "application/json"})

        for start in range(0, COUNT, REQUEST):
            rows = ROWS[start : start + REQUEST]
            found = ask(rows)
            if found.status_code == 422:
                named = {start + one["row"]: one["kind"] for one in found.json()["records"]}
                refused |= named
                found = ask([row for n, row in enumerate(rows, start) if n not in named])
            assert found.status_code == 200
            answers += found.json()
    return answers, refused


ANSWERS = ["y_pred", "y_proba_no", "y_proba_perhaps", "y_proba_yes"]
FEATURES = {
    "age": "FP64",
    "income": "FP64",
    "tenure": "FP64",
    "visits": "FP64",
    "city": "BYTES",
    "note": "BYTES",
}


def as_tensors(rows, triton):
    """A tensor for each feature: a missing number is NaN, and a column of missing texts is not sent at all."""
    for name, datatype in FEATURES.items():
        if datatype == "BYTES":
            values = np.array([row[name] for row in rows], object)
        else:
            values = np.array([row[name] for row in rows], float)
        if values[0] is not None:
            tensor = triton.InferInput(name, [len(rows)], datatype)
            tensor.set_data_from_numpy(values)
            yield tensor


def requested_as_tensors(host, ask):
    """`ask(server, rows)` gives the answers as a table, and which rows are bad; a text that is missing has no place in a tensor."""
    made = pipeline(MemorySource(TABLE), host)
    tables, refused = [], set()
    with made.serving(grpc_bind="127.0.0.1:0") as server:
        for there in (True, False):
            rows = [row for row in ROWS if (row["city"] is not None) is there]
            for start in range(0, len(rows), REQUEST):
                some = rows[start : start + REQUEST]
                while bad := (found := ask(server, some))[1]:  # a refusal names some of them
                    refused |= {some[row]["id"] for row in bad}
                    some = [row for n, row in enumerate(some) if n not in bad]
                tables.append(found[0].append_column("id", pa.array([row["id"] for row in some])))
    return pa.concat_tables(tables).sort_by("id").drop_columns("id"), refused


def by_json_tensors(server, rows):
    """The protocol in JSON."""

    def tensor(name, datatype):
        data = [None if value != value else value for value in (row[name] for row in rows)]  # noqa: PLR0124 - NaN
        return {"name": name, "datatype": datatype, "shape": [len(rows)], "data": data}

    asked = {"inputs": [tensor(name, datatype) for name, datatype in FEATURES.items()]}
    found = httpx.post(f"{server.url}/v2/models/Pipeline/infer", json=asked)
    if found.status_code == 422:
        return None, {one["row"] for one in found.json()["records"]}
    assert found.status_code == 200, found.text
    return pa.table({one["name"]: one["data"] for one in found.json()["outputs"]}), set()


def by_binary_tensors(server, rows):
    """The protocol in binary, written and read by Triton's client, which by itself shows no more of a refusal than its text."""
    import tritonclient.http as triton

    client = triton.InferenceServerClient
    body, length = client.generate_request_body(list(as_tensors(rows, triton)))
    headers = {"Inference-Header-Content-Length": str(length), "Content-Type": "application/octet-stream"}
    found = httpx.post(f"{server.url}/v2/models/Pipeline/infer", content=body, headers=headers)
    if found.status_code == 422:
        return None, {one["row"] for one in found.json()["records"]}
    length = found.headers.get("inference-header-content-length")
    return as_table(client.parse_response_body(found.content, header_length=length and int(length))), set()


def by_grpc(server, rows):
    """The protocol over gRPC, asked by Triton's client."""
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(server.grpc_address) as client:
        try:
            found = client.infer("Pipeline", list(as_tensors(rows, triton)))
        except InferenceServerException as error:
            return None, {int(row) for row in re.findall(r"row (\d+):", str(error))}
        return as_table(found), set()


def as_table(found):
    """Triton's answers by name."""
    columns = {name: found.as_numpy(name).tolist() for name in ANSWERS}
    columns["y_pred"] = [one.decode() if isinstance(one, bytes) else one for one in columns["y_pred"]]
    return pa.table(columns)


def same(found, wanted):
    """Tables with the same columns, types, order and values; floats to the last digits."""
    assert [(field.name, field.type) for field in found.schema] == [
        (field.name, field.type) for field in wanted.schema
    ]
    for field in wanted.schema:
        if pa.types.is_floating(field.type):
            np.testing.assert_allclose(found[field.name], wanted[field.name], rtol=1e-12, atol=0)
        else:
            assert found[field.name].to_pylist() == wanted[field.name].to_pylist(), field.name


@pytest.fixture(scope="module")
def reference(host):
    """What the estimator itself says to the good records, without mlinfer."""
    frame = pd.DataFrame([row for row in ROWS if row["id"] not in BAD])
    model = host.model
    data = frame.astype({"age": float, "income": float, "tenure": float, "visits": "int32"})
    answers = {"y_pred": model.predict(data).tolist()}
    for place, name in enumerate(model.classes_):
        answers[f"y_proba_{name}"] = model.predict_proba(data)[:, place]
    kept = {name: pa.array(list(frame[name]), kind) for name, kind in KEEP.items()}
    return pa.table(kept | answers)


@pytest.fixture
def jsonl(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(as_json(row) + "\n" for row in ROWS), "utf-8")
    return JsonLinesSource(tmp_path / "rows.jsonl")


@pytest.fixture
def parquet(tmp_path):
    pq.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=700)
    return ParquetSource(tmp_path / "rows.parquet")


def test_a_run_over_json_lines_answers_as_the_estimator(host, reference, jsonl):
    answers, refused = ran(jsonl, host)
    same(answers, reference)
    assert refused == BAD


def test_a_run_over_parquet_answers_as_the_estimator(host, reference, parquet):
    answers, refused = ran(parquet, host)
    same(answers, reference)
    assert refused == BAD


def test_a_run_over_records_in_memory_answers_as_the_estimator(host, reference):
    answers, refused = ran(MemorySource(TABLE), host)
    same(answers, reference)
    assert refused == BAD


@pytest.mark.parametrize("form", ["dicts", "texts for times", "arrow", "pandas", "dictionaries", "large"])
def test_records_in_hand_are_answered_as_the_estimator_answers(host, reference, form):
    data = {
        "dicts": lambda: ROWS,
        "texts for times": lambda: [json.loads(as_json(row)) for row in ROWS],
        "arrow": lambda: TABLE,
        "pandas": TABLE.to_pandas,
        "dictionaries": lambda: TABLE.set_column(5, "city", TABLE["city"].dictionary_encode()),
        "large": lambda: TABLE.set_column(6, "note", TABLE["note"].cast(pa.large_string())),
    }[form]()
    answers, refused = in_hand(data, host)
    same(answers, reference)
    assert refused == BAD


def test_requests_are_answered_as_the_estimator_answers(host, reference):
    answers, refused = requested(host)
    assert refused == BAD
    assert {tuple(answer) for answer in answers} == {tuple(reference.column_names)}
    assert {type(answer["y_proba_no"]) for answer in answers} == {float}
    times = {"when": [datetime.fromisoformat(answer["when"]) for answer in answers]}
    columns = {name: [answer[name] for answer in answers] for name in reference.column_names}
    same(pa.table(columns | times).cast(reference.schema), reference)


@pytest.mark.parametrize("ask", [by_json_tensors, by_binary_tensors, by_grpc])
def test_tensors_are_answered_as_the_estimator_answers(host, reference, ask):
    answers, refused = requested_as_tensors(host, ask)
    same(answers, reference.select(ANSWERS))
    assert refused == set(BAD)


# --- what only rows can get wrong -------------------------------------------------------------------------------------

FIELDS = pa.schema(
    [
        pa.field("flag", pa.bool_(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("size", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("hour", pa.time64("us"), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), 2), nullable=False),
        pa.field("tags", pa.list_(pa.string())),
    ]
)
GOOD = {
    "flag": True, "count": 2**53 + 1, "size": 0.1, "text": "é\u2028\x00", "day": "2024-02-29", "hour": "23:59:59.999999",
    "vector": [0.25, 1], "tags": ["a", None, ""],
}  # fmt: skip
VALUES = [
    None, True, 0, -1, 7, 2**31, 2**53 + 1, 2**63, 2**70, 0.0, -0.5, 1e300, "", "7", "true", "2024-02-29",
    "2023-02-29", "12:30", "24:30", "2024-02-29T12:30:00", [], [1], [1, 2], [1, 2.5], [1, None], [1, "2"],
    ["a"], [True, False], [[1, 2]], {}, {"a": 1}, "\U0001f469\u200d\U0001f680", "\ufeff",
]  # fmt: skip


@pytest.fixture(scope="module")
def mixed():
    """Every value in the place of every field."""
    return [GOOD | {"id": n} for n in range(3)] + [
        GOOD | {"id": 3 + n, name: value}
        for n, (name, value) in enumerate((name, value) for name in FIELDS.names for value in VALUES)
    ]


def test_rows_with_any_value_in_any_field_get_the_same_answer_or_refusal_whichever_way_they_come(
    mixed, tmp_path
):
    outputs = pa.schema([field.with_name(f"{field.name}_") for field in FIELDS])
    echo = FunctionHost(
        lambda records: dict(zip(outputs.names, records.columns, strict=True)), FIELDS, outputs, version="1"
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed), "utf-8")
    keep = {"id": pa.int64()}
    rejects = MemoryDestination()
    source = JsonLinesSource(tmp_path / "rows.jsonl")
    made = InferencePipeline(
        source, echo, MemoryDestination(), name="p", keep=keep, rejects=rejects, budget=Budget(ratio=1)
    )
    made.run()
    wanted = made.job.destination.table()
    refused = {
        json.loads(one["raw"] or one["record"])["id"]: one["kind"]
        for one in rejects.table("rejects").to_pylist()
    }
    assert 30 < len(refused) < len(mixed) - 30, "the values try too little"

    with made:
        found = _infer(made, mixed)
        alone = [_infer(made, [row])[0] for row in mixed]
    differ = [n for n, one in enumerate(found) if one != alone[n]]
    assert not differ, "an answer depends on the records beside it"
    assert {n: one["status"] for n, one in enumerate(found) if one["status"] != "ok"} == refused
    good = [one for one in found if one["status"] == "ok"]
    assert [{name: one[name] for name in wanted.column_names} for one in good] == wanted.to_pylist()

    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        answered = client.post("/predict", json=[mixed[one["id"]] for one in good])
        named = client.post("/predict", json=[mixed[n] for n in sorted(refused)][:100])
    answers = [
        one | {"day_": date.fromisoformat(one["day_"]), "hour_": time.fromisoformat(one["hour_"])}
        for one in answered.json()
    ]
    assert answers == wanted.to_pylist()
    assert [one["kind"] for one in named.json()["records"]] == [refused[n] for n in sorted(refused)][:100]


def _infer(pipeline, rows):
    """The answers; the words about a refusal may differ, its kind may not."""
    return pipeline.infer(rows, on_reject="null").drop_columns(["status_detail"]).to_pylist()
