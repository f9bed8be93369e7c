"""Some of a host's answers, under names of one's own."""

import pyarrow as pa
import pytest

import mlinfer
from mlinfer import ConfigError, InferencePipeline, Stateful
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, Selected
from mlinfer.sources import MemorySource


def both(x):
    return {"twice": 2 * x, "square": x * x}


HOST = FunctionHost(both, {"x": "float64"}, {"twice": "float64", "square": "float64"}, takes="numpy")


def pipeline(host):
    return InferencePipeline(MemorySource({"x": [1.0, 3.0]}), host, MemoryDestination(), name="selected")


def test_only_the_named_answers_arrive_under_their_new_names():
    with pipeline(Selected(HOST, {"area": "square"})) as selected:
        selected.run()
        assert selected.job.destination.table().to_pydict() == {"area": [1.0, 9.0]}
        assert selected.infer({"x": [4.0]}).to_pydict() == {"area": [16.0]}


def test_an_answer_that_the_model_does_not_give_is_a_config_error_that_lists_those_it_gives():
    with pytest.raises(ConfigError, match=r"answers of the model \(twice, square\), found \['cube'\]"):
        pipeline(Selected(HOST, {"volume": "cube"})).check()


def test_other_answers_are_another_model_for_stored_progress():
    with Selected(HOST, {"a": "twice"}).open() as one, Selected(HOST, {"a": "square"}).open() as other:
        assert one.signature.fingerprint() != other.signature.fingerprint()


def test_the_inner_models_memory_is_not_lost():
    class Remembering:
        signature = mlinfer.Signature(pa.schema([("x", pa.int64())]), pa.schema([("y", pa.int64())]))

        def infer(self, records):
            return pa.record_batch({"y": records.column("x")})

        def snapshot(self):
            return b"memory"

        def restore(self, state):
            pass

    from mlinfer.hosts._selected import SelectedModel

    model = SelectedModel(Remembering(), {"z": "y"})
    assert isinstance(model, Stateful)
    assert model.snapshot() == b"memory"
