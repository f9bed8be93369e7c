"""What a server can neither take nor say is refused when it starts, and what it can is answered by every way in."""

import json
from contextlib import contextmanager
from functools import partial

import httpx
import pyarrow as pa
import pytest

from mlinfer import ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
from money import Money

UNSAID = {
    pa.list_view(pa.float64()): r"take list<item: double> in place of list_view<item: double>",
    pa.large_list_view(pa.float64()): r"take list<item: double> in place of large_list_view",
    pa.month_day_nano_interval(): r"take a duration, or .* in place of month_day_nano_interval",
    pa.run_end_encoded(pa.int32(), pa.float64()): r"take double in place of run_end_encoded",
    pa.dense_union([pa.field("a", pa.int64())]): r"take a struct .* in place of dense_union",
    pa.struct([pa.field("a", pa.list_(pa.list_view(pa.int64())))]): r"take list<item: int64> in place of",
}
SAID = [pa.list_(pa.float64()), pa.string_view(), pa.map_(pa.string(), pa.int64()), pa.duration("s"),
        pa.dictionary(pa.int32(), pa.string()), pa.uuid(), pa.struct([])]  # fmt: skip


def never(records):
    raise AssertionError


def serving(inputs, outputs, **more):
    host = FunctionHost(never, inputs, outputs, version="1")
    return InferencePipeline(MemorySource({"x": [1.0]}), host, MemoryDestination(), **more).serving()


@pytest.mark.parametrize(("kind", "told"), UNSAID.items(), ids=str)
@pytest.mark.parametrize("role", ["inputs", "answers", "kept"])
def test_a_type_that_no_client_can_say_or_read_is_refused_before_the_server_listens(kind, told, role):
    inputs, outputs = {"x": kind if role == "inputs" else pa.float64()}, {"y": pa.float64()}
    keep = {"z": kind} if role == "kept" else ()
    name = {"inputs": "x", "answers": "y", "kept": "z"}[role]
    if role == "answers":
        outputs = {"y": kind}
    with pytest.raises(ConfigError, match=f"that JSON and tensors can say, found '{name}' .*{told}"):
        serving(inputs, outputs, keep=keep).__enter__()


@pytest.mark.parametrize("kind", SAID, ids=str)
def test_all_others_are_served(kind):
    with serving({"x": pa.float64()}, {"y": kind}) as server:
        assert httpx.get(f"{server.url}/openapi.json").status_code == 200


@contextmanager
def echoing(kind, *, nullable=False):
    """A client of a server whose model answers with what it was asked."""
    inputs, outputs = pa.schema([pa.field("x", kind, nullable=nullable)]), pa.schema([pa.field("y", kind)])
    host = FunctionHost(lambda asked: {"y": asked.column("x")}, inputs, outputs, version="1")
    made = InferencePipeline(MemorySource({"x": [1.0]}), host, MemoryDestination())
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        yield client


NOTHING = pa.list_(pa.int64(), 0)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.list_(pa.string_view(), 2), ["a", "b"], ["a"]),
        (pa.list_(pa.list_(pa.string_view()), 1), [["a"]], [["a"], []]),
    ],
    ids=str,
)
def test_a_list_of_another_length_is_a_bad_record_whatever_arrow_makes_of_it(kind, good, bad):
    """Arrow takes none out of views."""
    with echoing(kind) as client:
        found = client.post("/predict", json=[{"x": good}, {"x": bad}, {"x": good}])
        assert found.status_code == 422, found.text
        assert [one["row"] for one in found.json()["records"]] == [1]
        assert client.post("/predict", json=[{"x": good}] * 2).json() == [{"y": good}] * 2


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (NOTHING, [], [1]),
        (pa.list_(NOTHING), [[], []], [[1]]),
        (pa.struct([("a", NOTHING)]), {"a": []}, {"a": [1]}),
    ],
    ids=str,
)
def test_lists_of_no_elements_may_be_kept_and_another_length_is_a_bad_record(kind, good, bad):
    """No model may ask for them, and Arrow divides by their length, which ended the server."""
    host = FunctionHost(
        lambda asked: {"y": asked.column("n")},
        inputs={"n": pa.int64()},
        outputs={"y": pa.int64()},
        version="1",
    )
    made = InferencePipeline(MemorySource({"n": [1]}), host, MemoryDestination(), keep={"x": kind})
    with made.serving() as server, httpx.Client(base_url=server.url) as client:
        found = client.post("/predict", json=[{"n": 1, "x": good}, {"n": 2, "x": bad}, {"n": 3, "x": good}])
        assert found.status_code == 422, found.text
        assert [one["row"] for one in found.json()["records"]] == [1]
        assert client.post("/predict", json={"n": 1, "x": good}).json() == {"x": good, "y": 1}


@pytest.mark.parametrize(
    "wrap", [None, pa.list_, partial(pa.map_, pa.string())], ids=["alone", "list", "map"]
)
def test_a_decimal_that_a_float_tells_apart_comes_back_as_it_was_sent(wrap):
    """The digits behind it were made up: 12345678901.1234 came back as 12345678901.123399734497."""
    decimal = pa.decimal128(30, 12)
    asked = {None: "{}", pa.list_: "[{}]"}.get(wrap, '{{"k":{}}}').format("12345678901.1234")
    with echoing(wrap(decimal) if wrap else decimal) as client:
        found = client.post(
            "/predict", content=f'{{"x":{asked}}}', headers={"Content-Type": "application/json"}
        )
    assert found.text == f'{{"y":{asked}}}'.replace("12345678901.1234", '"12345678901.123400000000"')


NEEDS = pa.struct([pa.field("a", pa.float64(), nullable=False), ("b", pa.int64())])


def test_an_object_that_lacks_a_part_that_is_required_is_a_bad_record():
    with echoing(NEEDS) as client:
        found = client.post("/predict", json=[{"x": one} for one in ({"a": 1.5}, {"a": None}, {"b": 1}, {})])
        assert found.status_code == 422
        assert [one["row"] for one in found.json()["records"]] == [1, 2, 3]
        assert client.post("/predict", json={"x": {"a": 1.5}}).json() == {"y": {"a": 1.5, "b": None}}
        told = client.get("/openapi.json").json()["components"]["schemas"]["Record"]["properties"]["x"]
    assert told["required"] == ["a"]
    assert [told["properties"][name]["type"] for name in "ab"] == ["number", ["integer", "null"]]


def test_an_object_that_is_null_in_a_map_is_answered_as_null():
    """Arrow sees a missing part there, where there is no object that could lack one."""
    with echoing(pa.map_(pa.string(), NEEDS)) as client:
        for given in ({"k": None, "l": {"a": 1.5, "b": 2}}, {}, {"k": None}):
            found = client.post("/predict", json=[{"x": given}, {"x": {}}])
            assert (found.status_code, found.json()) == (200, [{"y": given}, {"y": {}}])


ZEROS = "AAAAAAAAAAAAAAAAAAAAAA=="
LISTS = [
    (pa.list_(pa.binary()), ["/w==", None]),
    (pa.list_(pa.struct([("a", pa.float32()), ("b", pa.string())])), [{"a": 1.5, "b": None}]),
    (pa.list_(pa.map_(pa.string(), pa.int32())), [{"a": 1}]),
    (pa.list_(pa.uuid()), [ZEROS]),
    (pa.list_(pa.struct([("id", pa.uuid())]), 1), [{"id": ZEROS}]),
]


@pytest.mark.parametrize(("kind", "value"), LISTS, ids=str)
def test_lists_of_bytes_objects_and_identities_may_be_asked_and_answered(kind, value):
    with echoing(kind) as client:
        assert client.post("/predict", json=[{"x": value}, {"x": value}]).json() == [{"y": value}] * 2
        assert client.post("/predict", json={"x": 5}).status_code == 422


@pytest.mark.parametrize("values", [pa.string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("listed", [False, True])
def test_words_of_a_dictionary_are_answered_as_texts_however_they_are_stored(values, listed):
    words = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), pa.array(["a", "b"], values))
    answers = pa.FixedSizeListArray.from_arrays(words, 1) if listed else words
    host = FunctionHost(lambda _: {"y": answers}, {"x": "double"}, {"y": answers.type}, version="1")
    made = InferencePipeline(MemorySource({"x": [1.0]}), host, MemoryDestination())
    asked = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]}]}
    with made.serving() as server:
        found = httpx.post(f"{server.url}/v2/models/lambda-/infer", json=asked)
        assert found.status_code == 200, found.text
        assert found.json()["outputs"][0]["data"] == ["b", "a"]


EXTENDED = [
    (Money(pa.int64()), "INT64", [1], [5]),
    (Money(pa.timestamp("s")), "BYTES", [1], ["2024-02-29T12:00:00"]),
    (pa.bool8(), "INT8", [1], [1]),
    (pa.json_(), "BYTES", [1], ['{"a": 1}']),
    (pa.fixed_shape_tensor(pa.float32(), [2, 1]), "FP32", [1, 2], [1.5, 2.0]),
    (pa.list_(Money(pa.float64())), "FP64", [1, 2], [1.5, 2.0]),
]


@pytest.mark.parametrize(("kind", "datatype", "shape", "data"), EXTENDED, ids=str)
def test_extension_types_are_asked_and_answered_as_what_they_are_stored_as(kind, datatype, shape, data):
    value = data if len(shape) > 1 else data[0]
    with echoing(kind) as client:
        assert client.post("/predict", json={"x": value}).json() == {"y": value}
        model = "/v2/models/lambda-"
        assert client.get(model).json()["inputs"][0]["datatype"] == datatype
        asked = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
        [answer] = client.post(f"{model}/infer", json={"inputs": [asked]}).json()["outputs"]
    assert (answer["datatype"], answer["shape"], answer["data"]) == (datatype, shape, data)


def test_an_identity_in_a_tensor_is_its_bytes():
    identity = bytes(range(16))
    asked = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 20}}
    head = json.dumps(
        {"inputs": [asked], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    ).encode()
    body = head + (16).to_bytes(4, "little") + identity
    with echoing(pa.uuid()) as client:
        found = client.post(
            "/v2/models/lambda-/infer",
            content=body,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert found.status_code == 200, found.text
        refused = client.post("/predict", json={"x": "no base64"})
    assert found.content.endswith((16).to_bytes(4, "little") + identity)
    assert "(as text in base64)" in refused.json()["records"][0]["message"]


def test_what_an_extension_type_is_stored_as_must_be_sayable_too():
    with pytest.raises(ConfigError, match="take list<item: int64> in place of list_view"):
        serving({"x": Money(pa.list_view(pa.int64()))}, {"y": pa.float64()}).__enter__()


KEYED = pa.struct([("id", pa.uuid()), ("n", pa.int64())])


@pytest.mark.parametrize(
    "kind", [pa.list_(KEYED), pa.struct([("l", pa.large_list(KEYED))]), pa.map_(pa.string(), KEYED)], ids=str
)
def test_no_lists_at_all_of_what_holds_an_extension_type_are_taken_and_told(kind):
    """Arrow flattens no such column of nothing but nulls."""
    with echoing(kind, nullable=True) as client:
        for value in [None, {"l": None}] if pa.types.is_struct(kind) else [None]:
            assert client.post("/predict", json={"x": value}).json() == {"y": value}
