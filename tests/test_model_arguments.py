"""Arguments of the wrong kind, and files of other things than models, are told before anything runs."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import ConfigError
from mlinfer.hosts import OnnxHost, SklearnHost

FITTED = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])


@pytest.fixture
def graph(tmp_path):
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"])] for name in "xy"]
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", *ends)
    path = tmp_path / "same.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def refusal(host):
    with pytest.raises(ConfigError) as raised, host.open():
        pass
    return str(raised.value)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", None, True])
def test_threads_are_a_whole_number(graph, threads):
    assert (
        refusal(OnnxHost(graph, threads=threads))
        == f"threads: wanted a whole number of 1 or more, found {threads!r}"
    )


def test_more_threads_than_the_machine_has_processors_are_not_started(graph):
    """A thousand that wait for work by turning in circles left no time for the work."""
    with OnnxHost(graph, threads=10**6).open() as model:
        assert model.infer_arrays({"x": np.array([1.5], np.float32)})["y"].tolist() == [1.5]
        tasks = Path("/proc/self/task")  # those of C++, which Python does not know, too
        assert not tasks.is_dir() or len(list(tasks.iterdir())) < 500


@pytest.mark.parametrize("sha256", [5, b"0" * 64, "0" * 63])
def test_a_digest_is_a_text_of_hex_digits(graph, tmp_path, sha256):
    package = mlinfer.save(FITTED, tmp_path / "twice.mlinfer")
    for host in (OnnxHost(graph, sha256=sha256), SklearnHost(package, sha256=sha256)):
        assert refusal(host) == f"sha256: wanted 64 hex digits, found {sha256!r}"


@pytest.mark.parametrize("method", [5, {"predict": 1}, [["predict"]]])
def test_methods_are_names(tmp_path, method):
    assert "method: wanted one or several of predict, " in refusal(SklearnHost(FITTED, method=method))
    with pytest.raises(ConfigError, match="method: wanted one or several of predict, "):
        mlinfer.save(FITTED, tmp_path / "twice.mlinfer", method=method)


@pytest.mark.parametrize("what", [5, {"model": FITTED}, [FITTED]])
def test_a_pickle_of_something_else_is_no_model(tmp_path, what):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(what))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    said = refusal(SklearnHost(path, allow_code_format="pickle", sha256=digest, example=np.zeros((1, 1))))
    assert f"{path}: wanted a fitted estimator, found {type(what).__name__}" in said
