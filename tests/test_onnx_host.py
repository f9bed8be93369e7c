"""OnnxHost runs any self-contained ONNX model, and says what it cannot run before a record moves."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlinfer import Budget, ConfigError, InferencePipeline, RecordErrors
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import OnnxHost
from mlinfer.sources import MemorySource


def tensor(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, nodes, inputs, outputs, constants=()):  # noqa: PLR0917 - as helper.make_graph
    constants = [numpy_helper.from_array(value, name) for name, value in dict(constants).items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 5)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def linear(tmp_path):
    """`y = x @ w + b`, three numbers to two, in float32."""
    weights = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    ends = [tensor("x", TensorProto.FLOAT, "n", 3)], [tensor("y", TensorProto.FLOAT, "n", 2)]
    return saved(
        tmp_path / "linear.onnx", nodes, *ends, {"w": weights, "b": np.array([0.5, -0.5], np.float32)}
    )


def infer(host, records, **options):
    with InferencePipeline(MemorySource(records), host, MemoryDestination()) as pipeline:
        return pipeline.infer(records, **options)


def refusal(host):
    with pytest.raises(ConfigError) as raised, host.open():
        pass
    return str(raised.value)


def test_a_run_delivers_what_the_graph_computes(linear):
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    destination = MemoryDestination()
    report = InferencePipeline(MemorySource({"x": x}), OnnxHost(linear), destination, name="linear").run()
    assert (report.delivered, report.rejected) == (10, 0)
    np.testing.assert_array_equal(
        destination.table()["y"].to_pylist(), x @ [[1, 2], [3, 4], [5, 6]] + [0.5, -0.5]
    )
    with OnnxHost(linear, threads=2).open() as model:
        assert model.signature.digest == hashlib.sha256(linear.read_bytes()).hexdigest()
        assert model.signature.outputs.field("y").type == pa.list_(
            pa.field("item", pa.float32(), nullable=False), 2
        )
        assert model.explain()[0].startswith("ONNX Runtime")


def test_batches_and_arrays_are_answered_alike(linear):
    with OnnxHost(linear).open() as model:
        kind = model.signature.inputs.types[0]
        for rows in (0, 1, 5):
            flat = np.random.default_rng(rows).standard_normal(rows * 3).astype(np.float32)
            array = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)
            batch = pa.RecordBatch.from_arrays([array], schema=model.signature.inputs)
            answers = model.infer(batch)
            assert answers.schema == model.signature.outputs
            found = model.infer_arrays({"x": flat.reshape(rows, 3)})["y"]
            np.testing.assert_array_equal(np.array(answers["y"].to_pylist()).reshape(rows, 2), found)


def test_several_inputs_and_outputs_are_columns_of_their_own_types(tmp_path):
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Greater", ["a", "b"], ["more"]),
        helper.make_node("StringConcat", ["name", "mark"], ["marked"]),
        helper.make_node("Cast", ["count"], ["wide"], to=TensorProto.INT64),
    ]
    inputs = [
        tensor("a", TensorProto.DOUBLE, "n"), tensor("b", TensorProto.DOUBLE, "n", 1),
        tensor("name", TensorProto.STRING, "n", 1), tensor("count", TensorProto.INT32, "n"),
    ]  # fmt: skip
    nodes.insert(0, helper.make_node("Reshape", ["a", "column"], ["a1"]))
    nodes[1] = helper.make_node("Add", ["a1", "b"], ["sum"])
    nodes[2] = helper.make_node("Greater", ["a1", "b"], ["more"])
    outputs = [
        tensor("sum", TensorProto.DOUBLE, "n", 1), tensor("more", TensorProto.BOOL, "n", 1),
        tensor("marked", TensorProto.STRING, "n", 1), tensor("wide", TensorProto.INT64, "n"),
    ]  # fmt: skip
    constants = {"mark": np.array(["!"], object), "column": np.array([-1, 1])}
    path = saved(tmp_path / "many.onnx", nodes, inputs, outputs, constants)
    records = [{"a": 1.5, "b": 1.0, "name": "Zoë", "count": 7}, {"a": 0.5, "b": 1.0, "name": "", "count": -7}]
    assert infer(OnnxHost(path), records).to_pylist() == [
        {"sum": 2.5, "more": True, "marked": "Zoë!", "wide": 7},
        {"sum": 1.5, "more": False, "marked": "!", "wide": -7},
    ]


def test_a_tensor_of_several_dimensions_is_a_list_row_by_row(tmp_path):
    nodes = [helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 2, 1])]
    ends = [tensor("image", TensorProto.UINT8, "n", 2, 3)], [tensor("turned", TensorProto.UINT8, "n", 3, 2)]
    path = saved(tmp_path / "turn.onnx", nodes, *ends)
    table = infer(OnnxHost(path), [{"image": [0, 1, 2, 3, 4, 5]}])
    assert table["turned"].to_pylist() == [[0, 3, 1, 4, 2, 5]]


def test_a_model_for_one_record_at_a_time_is_asked_for_one_at_a_time(tmp_path):
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0)]
    ends = [tensor("x", TensorProto.FLOAT, 1, 2)], [tensor("total", TensorProto.FLOAT, 1)]
    path = saved(tmp_path / "one.onnx", nodes, *ends, {"axes": np.array([1])})
    assert infer(OnnxHost(path), [{"x": [1, 2]}, {"x": [3, 4]}])["total"].to_pylist() == [3, 7]


def test_outputs_of_unknown_shape_are_seen_from_an_answer(tmp_path):
    nodes = [helper.make_node("Concat", ["x", "x"], ["twice"], axis=1)]
    ends = [tensor("x", TensorProto.FLOAT, "n", 2)], [tensor("twice", TensorProto.FLOAT, "n", "m")]
    table = infer(OnnxHost(saved(tmp_path / "twice.onnx", nodes, *ends)), [{"x": [1, 2]}])
    assert table["twice"].to_pylist() == [[1, 2, 1, 2]]


def test_a_record_that_the_graph_refuses_is_a_reject_and_the_others_are_answered(tmp_path):
    nodes = [helper.make_node("Gather", ["names", "place"], ["name"])]
    ends = [tensor("place", TensorProto.INT64, "n")], [tensor("name", TensorProto.STRING, "n")]
    path = saved(tmp_path / "names.onnx", nodes, *ends, {"names": np.array(["a", "b"], object)})
    table = infer(
        OnnxHost(path), [{"place": 0}, {"place": 9}, {"place": 1}, {"place": None}], on_reject="null"
    )
    assert table["name"].to_pylist() == ["a", None, "b", None]
    assert table["status"].to_pylist()[3] == "missing_value"


@pytest.mark.parametrize("width", [1, 3])
def test_an_answer_that_is_no_finite_number_is_a_reject_as_with_every_host(tmp_path, width):
    ends = [tensor("x", TensorProto.DOUBLE, "n", width)], [tensor("y", TensorProto.DOUBLE, "n", width)]
    log = OnnxHost(saved(tmp_path / "log.onnx", [helper.make_node("Log", ["x"], ["y"])], *ends))
    x = np.ones((5, width))
    x[1, -1], x[3, -1] = -1, 0  # NaN and -inf
    records = {"x": x if width > 1 else x[:, 0], "id": np.arange(5)}
    destination, rejects = MemoryDestination(), MemoryDestination()
    source = MemorySource(records)
    report = InferencePipeline(
        source, log, destination, name="log", keep=["id"], rejects=rejects, budget=Budget(ratio=1)
    ).run()
    assert (report.delivered, report.rejected) == (3, 2)
    assert destination.table()["id"].to_pylist() == [0, 2, 4]
    found = rejects.table("rejects")
    assert found["kind"].to_pylist() == 2 * ["bad_answer"]
    assert found["stage"].to_pylist() == 2 * ["answer"]
    with pytest.raises(RecordErrors, match="'y' is missing or not a finite number"):
        infer(log, records)
    answered = infer(log, records, on_reject="null")["y"].to_pylist()
    assert [value is None for value in answered] == [False, True, False, True, False]


# --- refused when it is opened -----------------------------------------------------------------------------------------


def external(path, place):
    """Put the weights elsewhere: as an initializer, inside a node of an inner graph, or in a function."""
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if one.name == "w")
    hidden = onnx.TensorProto()
    hidden.CopyFrom(weight)
    if place == "initializer":
        hidden = weight
    elif place == "inner graph":
        inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "inner", [], [])
        node = helper.make_node("If", ["x"], ["unused"], then_branch=inner, else_branch=inner)
        model.graph.node.append(node)
        hidden = (
            next(a for a in model.graph.node[-1].attribute if a.name == "then_branch")
            .g.node[0]
            .attribute[0]
            .t
        )
    else:
        node = helper.make_node("Constant", [], ["c"], value=hidden)
        model.functions.append(helper.make_function("mine", "f", [], ["c"], [node], model.opset_import))
        hidden = model.functions[0].node[0].attribute[0].t
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    entry = hidden.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["initializer", "inner graph", "function"])
def test_a_model_whose_tensors_lie_in_another_file_is_refused(linear, place, monkeypatch):
    (linear.parent / "weights.bin").write_bytes(np.ones(6, np.float32).tobytes())
    monkeypatch.chdir(linear.parent)  # where a careless loader would look
    external(linear, place)
    assert "'w' in another file" in refusal(OnnxHost(linear))


def test_the_file_must_be_the_one_that_was_meant(linear):
    digest = hashlib.sha256(linear.read_bytes()).hexdigest()
    with OnnxHost(linear, sha256=digest).open():
        pass
    content = bytearray(linear.read_bytes())
    content[len(content) // 2] ^= 1
    linear.write_bytes(content)
    assert "wanted the SHA-256" in refusal(OnnxHost(linear, sha256=digest))
    assert "wanted 64 hex digits" in refusal(OnnxHost(linear, sha256="abc"))


def test_what_is_no_model_is_refused(linear, tmp_path):
    assert "No such file" in refusal(OnnxHost(tmp_path / "none.onnx"))
    assert "regular file" in refusal(OnnxHost(tmp_path))
    for content in (b"", b"\x80\x04 no model", linear.read_bytes()[:-20], b"\x08\xff" * 50):
        linear.write_bytes(content)
        assert "ONNX" in refusal(OnnxHost(linear))
    assert "threads: wanted a whole number of 1 or more, found 0" in refusal(OnnxHost(linear, threads=0))


@pytest.mark.parametrize(
    ("shape", "found"),
    [(("n", "m"), "fixed size"), ((), "fixed size"), ((4, 2), "first dimension"), (("n", 2**25), "at most")],
)
def test_inputs_that_are_no_columns_are_refused(tmp_path, shape, found):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    ends = [tensor("x", TensorProto.FLOAT, *shape)], [tensor("y", TensorProto.FLOAT, *shape)]
    assert found in refusal(OnnxHost(saved(tmp_path / "odd.onnx", nodes, *ends)))


def test_maps_are_refused_with_the_way_out(tmp_path):
    nodes = [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    ends = [tensor("x", TensorProto.FLOAT, "n", 2)], [helper.make_value_info("y", kind)]
    assert "'zipmap': False" in refusal(OnnxHost(saved(tmp_path / "map.onnx", nodes, *ends)))


def test_without_onnx_runtime_the_way_to_get_it_is_told(linear, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "pip install 'mlinfer[onnx]'" in refusal(OnnxHost(linear))


def test_onnx_runtime_reports_nothing_and_leaves_nothing_behind(linear, tmp_path):
    """From 1.29 on it calls home unless it is told not to; what it would send waits in files first."""
    home = tmp_path / "home"
    home.mkdir()
    script = f"from mlinfer.hosts import OnnxHost\nwith OnnxHost({str(linear)!r}).open(): pass"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    places = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
    subprocess.run([sys.executable, "-c", script], env={**environment, **places}, check=True)
    assert list(home.iterdir()) == []


def test_a_host_is_a_recipe(linear):
    import pickle

    host = OnnxHost(str(linear))
    assert pickle.loads(pickle.dumps(host)) == host == OnnxHost(str(linear))
