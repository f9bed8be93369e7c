"""A model that finds as many things as it likes answers no record for certain, and OnnxHost says so."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlinfer import ComponentError, ConfigError, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import OnnxHost
from mlinfer.sources import MemorySource


def tensor(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path, nodes, inputs, outputs, constants):  # noqa: PLR0917 - as helper.make_graph
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def finder(path, records, bias):
    """One number for each value above 0 that it finds, as a detector answers boxes; of zeros those of the bias."""
    nodes = [
        helper.make_node("Add", ["x", "bias"], ["moved"]),
        helper.make_node("Relu", ["moved"], ["above"]),
        helper.make_node("NonZero", ["above"], ["places"]),
        helper.make_node("Transpose", ["places"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["y"], keepdims=0),
    ]
    ends = [tensor("x", TensorProto.FLOAT, records, 2)], [tensor("y", TensorProto.INT64, "found")]
    return saved(path, nodes, *ends, {"axis": [1], "bias": np.asarray(bias, np.float32)})


def infer(path, records):
    with InferencePipeline(MemorySource(records), OnnxHost(path), MemoryDestination()) as pipeline:
        return pipeline.infer(records, on_reject="null")


def refusal(path):
    with pytest.raises(ConfigError) as raised, OnnxHost(path).open():
        pass
    return str(raised.value)


def test_two_answers_to_one_record_and_none_to_the_next_are_not_taken_for_one_each(tmp_path):
    """They are two in all, so that counting them once is not enough."""
    path = finder(tmp_path / "finder.onnx", 1, [1, 0])
    assert infer(path, [{"x": [0, 0]}, {"x": [1, 0]}])["y"].to_pylist() == [0, 0]
    with pytest.raises(ComponentError, match=r"wanted one answer 'y' for each record, found 2 for one"):
        infer(path, [{"x": [0, 1]}, {"x": [-1, 0]}])


@pytest.mark.parametrize("records", [1, "n"])
def test_a_model_that_answers_zeros_with_another_number_is_refused_at_once(tmp_path, records):
    said = refusal(finder(tmp_path / "finder.onnx", records, [0, 0]))
    assert "wanted outputs with one answer per record, found" in said
    assert "'y'" in said


def test_answers_that_lie_across_the_records_are_refused_whatever_their_number(tmp_path):
    """Two records of two numbers, turned over, look like two answers of two numbers."""
    turn = [helper.make_node("Transpose", ["x"], ["y"])]
    for rows in ("other", 2):
        path = tmp_path / f"turned-{rows}.onnx"
        saved(
            path,
            turn,
            [tensor("x", TensorProto.FLOAT, "n", 2)],
            [tensor("y", TensorProto.FLOAT, rows, "n")],
            {},
        )
        assert "wanted outputs with one answer per record, found 'y'" in refusal(path)


def test_one_answer_to_all_records_is_refused(tmp_path):
    whole = [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)]
    ends = [tensor("x", TensorProto.FLOAT, "n")], [tensor("y", TensorProto.FLOAT, 1)]
    said = refusal(saved(tmp_path / "sum.onnx", whole, *ends, {"axis": [0]}))
    assert "wanted outputs with one answer per record, found 'y' of shape (1,) for 2 records" in said


def test_a_model_that_cannot_answer_zeros_is_taken_at_its_word(tmp_path):
    """It is asked only because the first dimension has another name than that of the input."""
    share = [helper.make_node("Div", ["one", "x"], ["y"])]
    ends = [tensor("x", TensorProto.INT64, "n")], [tensor("y", TensorProto.INT64, "m")]
    path = saved(tmp_path / "share.onnx", share, *ends, {"one": np.array([12])})
    assert infer(path, [{"x": 3}, {"x": 4}])["y"].to_pylist() == [4, 3]
