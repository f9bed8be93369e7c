"""`infer` answers data in hand, whatever it is, as `run` would; a bad record is named, or answered with nulls."""

import sys
import threading
from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import Budget, ComponentError, ConfigError, InferencePipeline, RecordErrors, SchemaError
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.sources import MemorySource


def add(a, b):
    if (a == 13).any():
        raise ValueError("unlucky")
    return a + b


HOST = FunctionHost(
    add, inputs={"a": "float64", "b": "int64"}, outputs={"y": "float64"}, takes="numpy", version="1"
)
TABLE = pa.table({"id": ["p", "q", "r"], "a": [1.5, 2.5, 3.5], "b": [1, 2, 3]})
ANSWERS = [2.5, 4.5, 6.5]


def pipeline(host=HOST, keep=(), data=TABLE, **more):
    more = {"name": "p", "keep": keep, **more}
    return InferencePipeline(MemorySource(data), host, MemoryDestination(), **more)


@pytest.mark.parametrize(
    "data",
    [
        TABLE,
        TABLE.combine_chunks().to_batches()[0],
        pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]),
        TABLE.to_pandas(),
        pl.from_arrow(TABLE),
        TABLE.to_pydict(),
        {name: TABLE[name].to_numpy() for name in ("a", "b")},
        {"a": pd.Series([1.5, 2.5, 3.5]), "b": pl.Series([1, 2, 3])},
        TABLE.to_pylist(),
        tuple(TABLE.to_pylist()),
        TABLE.select(["b", "id", "a"]),
    ],
    ids=lambda data: type(data).__name__,
)
def test_whatever_the_records_are_in_the_answers_are_the_same(data):
    with pipeline() as found:
        table = found.infer(data)
    assert isinstance(table, pa.Table)
    assert table.to_pydict() == {"y": ANSWERS}
    assert table.to_pandas()["y"].tolist() == ANSWERS


def test_a_matrix_is_a_tensor_and_a_list_of_texts_a_column():
    tensor = FunctionHost(
        lambda x: x.sum(axis=1), inputs={"x": pa.list_(pa.float64(), 2)}, outputs={"y": "float64"}, takes="numpy"
    )  # fmt: skip
    for matrix in (
        np.arange(6.0).reshape(3, 2),
        np.arange(6).reshape(3, 2),
        np.arange(12.0).reshape(3, 4)[:, ::2],
    ):
        with pipeline(tensor) as found:
            assert found.infer(matrix)["y"].to_pylist() == matrix.sum(axis=1).tolist()
    with pipeline(tensor) as found:
        assert found.infer(np.empty((0, 2))).num_rows == 0
    texts = FunctionHost(
        lambda b: pa.record_batch({"n": [len(t) for t in b["x"].to_pylist()]}),
        inputs={"x": "string"}, outputs={"n": "int64"},
    )  # fmt: skip
    for data in (["a", "bc", ""], np.array(["a", "bc", ""])):
        with pipeline(texts) as found:
            assert found.infer(data)["n"].to_pylist() == [1, 2, 0]


ODD = {
    "id": ["p", "q", "r", "s", "t"],
    "a": [1.0, None, 13.0, float("nan"), 5.0],
    "b": [1.0, 2.0, 3.0, 4.0, 5.5],
}


def rows(data):
    return [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]


@pytest.mark.parametrize("data", [ODD, rows(ODD)], ids=["columns", "rows"])
def test_bad_records_are_named(data):
    with pipeline(keep=["id"]) as found, pytest.raises(RecordErrors) as caught:
        found.infer(data)
    error = caught.value
    assert (error.rows, error.kinds) == (
        [1, 2, 3, 4],
        ["missing_value", "model_error", "missing_value", "wrong_type"],
    )
    assert str(error) == (
        "4 bad records: record 1: missing_value: field 'a': wanted a value (double), found none; "
        "record 2: model_error: ValueError: unlucky; "
        "record 3: missing_value: field 'a': wanted a value (double), found none; and 1 more"
    )


@pytest.mark.parametrize("data", [ODD, rows(ODD)], ids=["columns", "rows"])
def test_bad_records_can_be_answered_with_nulls(data):
    with pipeline(keep=["id"]) as found:
        table = found.infer(data, on_reject="null")
    assert table["y"].to_pylist() == [2.0, None, None, None, None]
    assert table["status"].to_pylist() == [
        "ok",
        "missing_value",
        "model_error",
        "missing_value",
        "wrong_type",
    ]
    assert table["status_detail"].to_pylist()[2] == "ValueError: unlucky"
    assert table["id"].to_pylist() == ODD["id"]


def test_only_the_row_that_is_no_record_is_bad():
    with pipeline() as found:
        table = found.infer([{"a": 1, "b": 1}, "text", {"a": "x", "b": 1}, {"b": 1}], on_reject="null")
    assert table["status"].to_pylist() == ["ok", "wrong_type", "wrong_type", "missing_value"]
    assert table["y"].to_pylist() == [2.0, None, None, None]


def test_a_kept_column_names_the_record_however_bad_it_is():
    rows = [{"id": 1, "a": 1.0, "b": 1}, {"id": 2, "a": "x", "b": 1}, {"id": 3, "a": None, "b": 1}, 7]
    rows += [{"id": 4.5, "a": 1.0, "b": 1}]
    with pipeline(keep={"id": pa.int64()}) as found:
        table = found.infer(rows, on_reject="null")
    assert table["id"].to_pylist() == [1, 2, 3, None, None]
    assert table["status"].to_pylist() == ["ok", "wrong_type", "missing_value", "wrong_type", "wrong_type"]


@pytest.mark.parametrize("form", [dict, MappingProxyType])
def test_a_mapping_of_any_kind_gives_kept_columns_their_types_in_hand_as_in_a_run(form):
    data = {"id": [1, 2], "a": [1.0, 2.0], "b": [1, 2]}
    with pipeline(keep=form({"id": pa.float32()}), data=data) as found:
        found.run()
        kinds = [found.infer(one).field("id").type for one in (data, rows(data))]
        kinds.append(found.job.destination.table().field("id").type)
    assert kinds == [pa.float32()] * 3


def test_nulls_for_all_keep_the_number_of_rows():
    with pipeline() as found:
        assert found.infer({"a": [None, None], "b": [1, 2]}, on_reject="null")["y"].to_pylist() == [
            None,
            None,
        ]


def test_infer_answers_as_run_does():
    rng = np.random.default_rng(0)
    data = pa.table(
        {"id": range(500), "a": rng.integers(0, 60, 500).astype(float), "b": rng.integers(0, 9, 500)}
    )
    rejects = MemoryDestination()
    with pipeline(keep=["id"], data=data, rejects=rejects) as found:
        found.run()
        answered = found.infer(data, on_reject="null")
    ran = found.job.destination.table()
    good = answered.filter(pa.compute.equal(answered["status"], "ok"))
    assert good.select(ran.schema.names).to_pylist() == ran.to_pylist()
    assert good.num_rows < 500
    assert {name.rpartition("#")[2] for name in rejects.table("rejects")["record_id"].to_pylist()} == {
        str(row) for row, status in enumerate(answered["status"].to_pylist()) if status != "ok"
    }


def test_several_threads_may_ask_at_once_and_load_the_model_once():
    opened, busy = [], []

    class Once(FunctionHost):
        def open(self):
            opened.append(1)
            threading.Event().wait(0.02)  # long enough for all to ask
            return super().open()

    def double(x):
        busy.append(1)
        assert len(busy) == 1
        busy.pop()
        return 2 * x

    found = pipeline(Once(double, {"x": "float64"}, {"y": "float64"}, "numpy"))
    results = {}

    def ask(number):
        for _ in range(20):
            results[number] = found.infer({"x": [float(number)] * 50})["y"].to_pylist()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.close()
    assert results == {number: [2.0 * number] * 50 for number in range(8)}
    assert opened == [1]


def test_every_call_of_a_model_with_memory_begins_anew():
    class Summing:
        def __init__(self, signature):
            self.signature, self.total = signature, 0.0

        def infer(self, records):
            sums = self.total + np.cumsum(records.column("x").to_numpy())
            self.total = sums[-1]
            return pa.record_batch({"y": sums})

        def snapshot(self):
            return repr(float(self.total)).encode()

        def restore(self, state):
            self.total = float(state)

    class Host(FunctionHost):
        def open(self):
            import contextlib

            with super().open() as model:
                return contextlib.nullcontext(Summing(model.signature))

    host = Host(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy")
    with pipeline(host, data={"x": [1.0, 2.0]}) as found:
        assert [found.infer({"x": [1.0, 2.0]})["y"].to_pylist() for _ in range(2)] == [[1, 3], [1, 3]]
        assert found.preview()["y"].to_pylist() == [1, 3]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"a": [1.0]}, SchemaError, "field 'b': wanted int64 (a value in every record), found no such column; columns there are: a"),
        ({"a": ["x"], "b": [1]}, SchemaError, "field 'a': wanted double (a value in every record), found string"),
        ({"a": [1.0, 2.0], "b": [1]}, ConfigError, "wanted columns of one length, found {'a': 2, 'b': 1}"),
        ({"a": 1.0, "b": 1}, ConfigError, "column 'a': wanted a list of values, one per record, found 1.0; write [1.0]"),
        ({"a": "1", "b": "2"}, ConfigError, "column 'a': wanted a list of values, one per record, found '1'"),
        ({"a": [1, "x"], "b": [1, 2]}, ConfigError, "column 'a': wanted values of one type, found a mixture"),
        (7, ConfigError, "wanted records (an Arrow table, pandas, polars, numpy, a dict of columns, a list of dicts or of strings), found int"),
        (pd.Series([1.0], name="a"), ConfigError, "wanted columns by name, found a single Series; write {'name': ...} around it"),
        (np.array(["2020"], "M8[Y]"), ConfigError, "wanted an array of numbers, booleans, texts or times in s, ms, us or ns, found one of datetime64[Y]"),
        (pd.DataFrame({"a": [1, "x"], "b": [1, 2]}), ConfigError, "the data frame has a column that is not of one type"),
    ],
)  # fmt: skip
def test_what_is_no_data_is_refused_in_words(data, error, message):
    with pipeline() as found, pytest.raises(error) as caught:
        found.infer(data)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "texts",
    [
        pl.Series(["p", "q"]),
        pl.Series(["p", "q"], dtype=pl.Categorical),
        pl.Series([["p"], ["q"]]),
        pl.Series([["p"], ["q"]], dtype=pl.Array(pl.String, 1)),
        pl.Series([{"t": "p"}, {"t": "q"}]),
        pl.Series([b"p", b"q"]),
    ],
    ids=lambda texts: str(texts.dtype),
)
def test_texts_of_polars_travel_beside_a_bad_record(texts):
    data = pl.DataFrame({"id": texts, "a": [1.5, None], "b": [1, 2]})
    for found in (
        data,
        {"id": texts, "a": [1.5, None], "b": [1, 2]},
        data.to_arrow(compat_level=pl.CompatLevel.newest()),
    ):
        with pipeline(keep=["id"], data=found, rejects=MemoryDestination(), budget=Budget(ratio=1.0)) as used:
            assert used.infer(found, on_reject="null")["id"].to_pylist() == texts.to_list()
            assert used.run().rejected == 1
            assert used.job.destination.table()["id"].to_pylist() == texts.to_list()[:1]


def test_what_shall_happen_to_bad_records_is_one_of_two_words():
    with (
        pipeline() as found,
        pytest.raises(ConfigError, match="on_reject: wanted 'raise' or 'null', found 'nul'"),
    ):
        found.infer(TABLE, on_reject="nul")


def test_preview_answers_the_first_records_and_delivers_nothing():
    with pipeline(keep=["id"]) as found:
        assert found.preview(2).to_pydict() == {
            "id": ["p", "q"], "y": ANSWERS[:2], "status": ["ok", "ok"], "status_detail": [None, None],
        }  # fmt: skip
        assert found.job.destination.table().num_rows == 0
        assert found.run().delivered == 3


def test_an_empty_list_has_no_answers_and_no_error():
    answers = pipeline().infer([])
    assert answers.num_rows == 0
    assert answers.schema.equals(pipeline().infer(TABLE).schema)


def test_a_data_frame_that_comes_back_in_another_order_is_refused():
    def sort(frame):
        return frame["x"].sort_values(ascending=False)

    host = FunctionHost(sort, {"x": "float64"}, {"y": "float64"}, takes="pandas")
    with pytest.raises(ComponentError, match=r"in the order of the records.*\.sort_index\(\)"):
        pipeline(host, data={"x": [1.0, 2.0, 3.0]}).infer({"x": [1.0, 2.0, 3.0]})


def test_a_model_that_calls_sys_exit_fails_for_its_record_alone():
    def leave(x):
        if (x == 2).any():
            sys.exit(3)
        return x

    host = FunctionHost(leave, {"x": "float64"}, {"y": "float64"}, takes="numpy")
    answers = pipeline(host).infer({"x": [1.0, 2.0, 3.0]}, on_reject="null")
    assert answers["y"].to_pylist() == [1.0, None, 3.0]
    assert answers["status_detail"][1].as_py() == "RuntimeError: the model called sys.exit(3)"


@pytest.mark.parametrize("on_reject", ["raise", "null"])
def test_a_matrix_of_another_width_is_one_error_not_one_for_each_record(on_reject):
    fitted = LinearRegression().fit(np.eye(4), np.arange(4.0))
    host = SklearnHost(fitted, example=np.eye(4))
    with InferencePipeline(MemorySource(np.eye(4)), host, MemoryDestination()) as pipeline:
        for narrow in (np.ones((100, 3)), np.ones((1, 5))):
            with pytest.raises(
                SchemaError, match=rf"found .*\[{narrow.shape[1]}\]; give each record the 4 values"
            ):
                pipeline.infer(narrow, on_reject=on_reject)
        with pytest.raises(SchemaError, match=r"each record is a list of 4 values; give a single one as \[v"):
            pipeline.infer(np.ones(4), on_reject=on_reject)
        assert pipeline.infer(np.ones((2, 4))).num_rows == 2
        assert pipeline.infer([np.ones(4)]).num_rows == 1


@pytest.mark.parametrize(
    ("role", "part", "message"),
    [
        (0, "flights.csv", r"wanted a source, such as ParquetSource\(path\) or .*, found str 'flights.csv'"),
        (1, LinearRegression(), r"wanted a host, such as SklearnHost\(model\), found LinearRegression"),
        (
            2,
            MemoryDestination,
            "wanted a destination, such as SqlDestination.*, found the class MemoryDestination",
        ),
        (0, pd.DataFrame({"x": [1.0]}), "wanted a source, such as .*, found DataFrame$"),
        (0, pa.table({"x": [1.0]}), "wanted a source, such as .*, found Table$"),
        (2, None, r"wanted a destination, such as SqlDestination\(url, table=...\), found None"),
    ],
)
def test_what_is_no_part_is_refused_at_once(role, part, message):
    parts = [MemorySource({"x": [1.0]}), SklearnHost("model.mlinfer"), MemoryDestination()]
    parts[role] = part
    with pytest.raises(ConfigError, match=message):
        InferencePipeline(*parts)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batching": 100}, r"batching: wanted Batching\(...\), found 100"),
        ({"budget": 0.1}, r"budget: wanted Budget\(...\), found 0.1"),
        ({"retry": 3}, r"retry: wanted Retry\(...\), found 3"),
        ({"keep": None}, "keep: wanted a list of columns, found None"),
        (
            {"keep": {"id": "nope"}},
            "keep: wanted an Arrow type for 'id', or the name of one .*, found 'nope'",
        ),
        ({"keep": {"id": None}}, "keep: wanted an Arrow type for 'id', or the name of one .*, found None"),
        ({"name": 7}, "name: wanted a text, found 7"),
        ({"name": "a\ud800"}, "name: wanted a text that UTF-8 can hold, found 'a"),
        ({"columns": ["x"]}, r"columns: wanted names by name, {model_name: source_name}, found \['x'\]"),
        ({"side": MemoryDestination()}, "side: wanted destinations by name, {table: destination}, found Mem"),
        ({"checkpoint": "p.json"}, r"checkpoint: wanted Checkpoint\(path\), found 'p.json'"),
    ],
)
def test_what_is_no_setting_is_refused_before_a_record_moves(setting, message):
    with pytest.raises(ConfigError, match=message):
        pipeline(**setting).explain()


@pytest.mark.parametrize("name", ["status", "status_detail"])
def test_a_kept_column_does_not_double_what_says_what_became_of_a_record(name):
    table = TABLE.append_column(name, [["x", "y", "z"]])
    with pipeline(keep=[name], data=table) as found:
        for ask in (found.preview, lambda: found.infer(table, on_reject="null")):
            with pytest.raises(ConfigError, match=f"found a kept column called '{name}'; .*do not keep it"):
                ask()
        assert found.infer(table).column_names == [name, "y"]
        assert found.infer(TABLE, on_reject="null").column_names == ["y", "status", "status_detail"]


def test_nor_does_an_answer():
    host = FunctionHost(add, {"a": "float64", "b": "int64"}, {"status": "float64"}, "numpy", version="1")
    with pipeline(host) as found:
        with pytest.raises(ConfigError, match="found an answer of the model called 'status'"):
            found.preview()
        assert found.infer(TABLE)["status"].to_pylist() == ANSWERS


@pytest.mark.parametrize("through", ["infer", "run"])
def test_what_is_masked_in_an_array_is_no_value(through):
    @mlinfer.host(inputs={"x": "double"}, outputs={"y": "double"}, takes="numpy", version="1")
    def doubled(x):
        return 2 * x

    @mlinfer.host(
        inputs={"x": pa.list_(pa.field("item", pa.float64(), nullable=False), 2)},
        outputs={"y": "double"},
        takes="numpy",
        version="1",
    )
    def summed(x):
        return x.sum(axis=1)

    numbers = np.ma.array([1.0, 7.0, 3.0], mask=[False, True, False])
    matrix = np.ma.array(
        [[1.0, 1.0], [7.0, 7.0], [1.0, 2.0]], mask=[[False, False], [False, True], [False, False]]
    )
    for host, data in (
        (doubled, {"x": numbers}),
        (doubled, numbers),
        (summed, matrix),
        (summed, matrix[::-1][::-1]),
    ):
        answers, rejects = MemoryDestination(), MemoryDestination()
        pipeline = InferencePipeline(
            MemorySource(data), host, answers, name="masked", rejects=rejects, budget=Budget(ratio=1)
        )
        if through == "run":
            pipeline.run()
            assert answers.table()["y"].to_pylist() == [2.0, 6.0 if host is doubled else 3.0]
            assert rejects.table("rejects")["kind"].to_pylist() == ["missing_value"]
        else:
            found = pipeline.infer(data, on_reject="null")
            assert found["y"].to_pylist() == [2.0, None, 6.0 if host is doubled else 3.0]
            assert found["status"][1].as_py() == "missing_value"


@pytest.mark.parametrize("kind", ["double", "int64", "bool", "string"])
def test_an_answer_that_is_masked_is_no_answer(kind):
    given = {"double": [1.5, 2.5, 3.5], "int64": [1, 2, 3], "bool": [True] * 3, "string": ["a", "b", "c"]}[
        kind
    ]

    @mlinfer.host(inputs={"x": "int64"}, outputs={"y": kind}, takes="numpy", version="1")
    def masking(x):
        if (x > 3).any():
            raise ValueError("too large")  # so that the others are asked again, part by part
        return np.ma.array(np.array(given)[x - 1], mask=x == 2)

    pipeline = InferencePipeline(MemorySource([]), masking, MemoryDestination(), name="masking")
    for asked in ([1, 2, 3], [1, 2, 3, 4]):
        found = pipeline.infer({"x": asked}, on_reject="null")
        assert found["y"].to_pylist()[:3] == [given[0], None, given[2]]
        assert found["status"][1].as_py() == "bad_answer"


@pytest.mark.parametrize("takes", ["arrow", "numpy"])
def test_a_null_among_the_values_of_a_dictionary_is_no_value(takes):
    kind = pa.dictionary(pa.int32(), pa.string())
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array(["a", None, "b"]))

    @mlinfer.host(inputs={"c": kind}, outputs={"n": "int64"}, takes=takes, version="1")
    def lengths(c):
        values = c.column("c").to_pylist() if takes == "arrow" else c.tolist()
        return {"n": [len(value) for value in values]}

    @mlinfer.host(inputs={"c": "string"}, outputs={"d": kind}, version="1")
    def encoded(records):
        return {"d": texts.slice(0, records.num_rows)}

    asked = InferencePipeline(MemorySource([]), lengths, MemoryDestination()).infer(
        {"c": texts}, on_reject="null"
    )
    assert asked["n"].to_pylist() == [1, None, 1]
    assert asked["status"].to_pylist() == ["ok", "missing_value", "ok"]
    given = InferencePipeline(MemorySource([]), encoded, MemoryDestination()).infer(
        {"c": ["x", "y", "z"]}, on_reject="null"
    )
    assert given["status"].to_pylist() == ["ok", "bad_answer", "ok"]


@pytest.mark.parametrize("kind", [">f8", ">i4", ">f4", "<f8", ">u2"])
def test_numbers_may_have_their_bytes_in_any_order(kind):
    @mlinfer.host(
        inputs={"x": "double"},
        outputs={"y": str(np.dtype(kind).newbyteorder("="))},
        takes="numpy",
        version="1",
    )
    def same(x):
        return x.astype(kind)

    @mlinfer.host(
        inputs={"x": pa.list_(pa.float64(), 2)}, outputs={"y": "double"}, takes="numpy", version="1"
    )
    def summed(x):
        return x.sum(axis=1)

    numbers = np.array([[1, 2], [3, 500]], kind)
    for host, data, answers in ((same, {"x": numbers[:, 1]}, [2, 500]), (summed, numbers, [3, 503])):
        assert (
            InferencePipeline(MemorySource([]), host, MemoryDestination()).infer(data)["y"].to_pylist()
            == answers
        )


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.list_(pa.string_view())], ids=str)
def test_bad_records_among_views_cost_nobody_else_his_answer(kind):
    """Records that are bad, that a model refuses and that make it fail, in a layout of which Arrow cannot choose some."""
    values = {"good": "YQ==", "bad": 1, "worse": "YWI="}
    if pa.types.is_list(kind):
        values = {name: [value] for name, value in values.items()}

    def answer(records):
        if any(one in ("YWI=", ["YWI="], b"ab") for one in records.column("x").to_pylist()):
            raise ValueError
        return {"y": records.column("x")}

    host = FunctionHost(answer, {"x": kind}, {"y": kind}, version="1")
    made = InferencePipeline(MemorySource({"x": ["a"]}), host, MemoryDestination(), keep={"k": kind})
    names = ["good", "bad", "worse", "good"]
    found = made.infer([{"x": values[name], "k": values["good"]} for name in names], on_reject="null")
    assert found["status"].to_pylist() == ["ok", "wrong_type", "model_error", "ok"]
    assert found["y"].is_valid().to_pylist() == [True, False, False, True]
    assert found["k"].null_count == 0
    assert found["y"].type == found["k"].type == kind
