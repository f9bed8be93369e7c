"""Chain: the answers of one model are the records of the next, checked before a record moves."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import mlinfer
from mlinfer import ComponentError, ConfigError, InferencePipeline, conform
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import Chain, FunctionHost, Selected, SklearnHost
from mlinfer.sources import MemorySource
from mlinfer.testing import check_host

X, Y = load_iris(return_X_y=True)
REDUCE = PCA(2, random_state=0).fit(X)
CLASSIFY = LogisticRegression().fit(REDUCE.transform(X), Y)


def components(method="transform"):
    return SklearnHost(REDUCE, method=method, example=X)


def classes(**options):
    return SklearnHost(CLASSIFY, example=REDUCE.transform(X), **options)


def joined():
    """The components under the name that the classifier gives its field."""
    with components().open() as first, classes().open() as second:
        (answer,), (field,) = first.signature.outputs.names, second.signature.inputs.names
    return Selected(components(), {field: answer})


@mlinfer.host(inputs={"n": "double"}, outputs={"root": "double"}, takes="numpy", version="1")
def root(n):
    if (n < 0).any():
        raise ValueError("no roots of negative numbers")
    return np.sqrt(n)


@mlinfer.host(inputs={"root": "double"}, outputs={"inverse": "double"}, takes="numpy", version="1")
def inverse(root):
    if (root == 0).any():
        raise ZeroDivisionError("nothing is the inverse of 0")
    return 1 / root


@mlinfer.host(inputs={"root": "string"}, outputs={"length": "int64"}, version="1")
def spelled(records):
    return {"length": pa.compute.utf8_length(records["root"])}


def test_two_estimators_in_a_chain_answer_as_their_pipeline_in_scikit_learn():
    whole = make_pipeline(REDUCE, CLASSIFY)
    destination = MemoryDestination()
    host = Chain(joined(), classes(method=["predict", "predict_proba"]))
    report = InferencePipeline(MemorySource(X), host, destination, name="chain").run()
    table = destination.table()
    assert report.delivered == len(X)
    assert table["y_pred"].to_pylist() == whole.predict(X).tolist()
    np.testing.assert_allclose(table["y_proba"].to_pylist(), whole.predict_proba(X), rtol=1e-12)


def test_a_record_that_either_model_refuses_is_rejected_alone():
    rejects, destination = MemoryDestination(), MemoryDestination()
    numbers = MemorySource({"n": [4.0, -1.0, 0.0, 16.0, 25.0]})
    pipeline = InferencePipeline(
        numbers,
        Chain(root, inverse),
        destination,
        name="c",
        rejects=rejects,
        keep=["n"],
        budget=mlinfer.Budget(ratio=None),
    )
    pipeline.run()
    assert destination.table().to_pylist() == [{"n": n, "inverse": n**-0.5} for n in (4.0, 16.0, 25.0)]
    assert [(row["record_id"][-2:], row["message"]) for row in rejects.table("rejects").to_pylist()] == [
        ("#1", "ValueError: no roots of negative numbers"),
        ("#2", "ZeroDivisionError: nothing is the inverse of 0"),
    ]


def test_an_answer_that_the_next_model_cannot_take_names_its_record():
    gaps = FunctionHost(
        lambda records: {"root": pa.array([1.0, None])},
        {"n": pa.float64()},
        {"root": pa.float64()},
        version="1",
    )
    needs = FunctionHost(
        lambda records: {"y": records["root"]},
        pa.schema([pa.field("root", pa.float64(), nullable=False)]),
        {"y": pa.float64()},
        version="1",
    )
    with Chain(gaps, needs).open() as model, pytest.raises(mlinfer.RecordErrors, match="root") as raised:
        model.infer(pa.record_batch({"n": [1.0, 2.0]}))
    assert (raised.value.rows, raised.value.kinds) == ([1], ["missing_value"])


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ((inverse, root), r"'root' wants the field 'n' \(double\), found 'inverse' with the answers inverse double; rename one with Selected"),
        ((root, spelled), r"'spelled' wants the field 'root' as string .*, found double among the answers of 'root'"),
    ],
    ids=["no such answer", "another type"],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused_before_a_record_moves(hosts, words):
    destination = MemoryDestination()
    pipeline = InferencePipeline(MemorySource({"n": [1.0]}), Chain(*hosts), destination, name="chain")
    with pytest.raises(ConfigError, match=words):
        pipeline.check()
    with pytest.raises(ConfigError, match=words):
        pipeline.run()
    assert destination.table() is None or len(destination.table()) == 0


class Remembering:
    signature = mlinfer.Signature(pa.schema({"root": pa.float64()}), pa.schema({"y": pa.float64()}), "memory")

    def infer(self, records):
        return records.rename_columns(["y"])

    def snapshot(self):
        return b""

    def restore(self, state):
        pass


def test_a_model_with_a_memory_is_refused():
    from mlinfer.hosts._chain import ChainedModels

    with root.open() as first, pytest.raises(ConfigError, match="found 'memory' with a memory"):
        ChainedModels([first, Remembering()])


@pytest.mark.parametrize("other", [None, "model.mlinfer", SklearnHost])
def test_what_is_no_host_is_refused_when_it_is_put_into_another(other):
    with pytest.raises(ConfigError, match=r"Chain: wanted a host, found .*; .* is SklearnHost\("):
        Chain(root, other)
    with pytest.raises(ConfigError, match="Selected: wanted a host, found"):
        Selected(other, {"a": "b"})


@pytest.mark.parametrize("answers", ["y_pred", ["y_pred"], {3: "y_pred"}, {"y_pred": 3}, None])
def test_answers_to_select_are_names_by_new_names(answers):
    with pytest.raises(ConfigError, match=r"Selected: wanted the answers as \{new_name: name\}, found"):
        Selected(root, answers)


def test_every_model_counts_for_the_digest_and_the_plan_names_them_all():
    def signature(*hosts):
        with Chain(*hosts).open() as model:
            return model.signature, model.explain()

    doubled = FunctionHost(
        lambda records: {"inverse": records["root"]},
        {"root": pa.float64()},
        {"inverse": pa.float64()},
        version="2",
    )
    (one, lines), (two, _) = signature(root, inverse), signature(root, doubled)
    assert one.model_id == "root > inverse"
    assert one.digest != two.digest
    assert [line[:2] for line in lines] == ["1.", "2."]


def packages(folder):
    """Saved models, for recipes that travel."""
    first = mlinfer.save(REDUCE, folder / "reduce.mlinfer", example=X, method="transform")
    second = mlinfer.save(CLASSIFY, folder / "classify.mlinfer", example=REDUCE.transform(X))
    return Chain(Selected(SklearnHost(first), {"x": "y_transform"}), SklearnHost(second))


def test_a_chain_is_inert_comparable_and_travels(tmp_path):
    assert Chain(root, inverse) == Chain(root, inverse) != Chain(inverse, root)
    chain = packages(tmp_path)
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert repr(chain).startswith("Chain(Selected(host=SklearnHost(")


def test_it_passes_every_check_of_the_kit_that_concerns_it(tmp_path):
    chain = packages(tmp_path)
    records = pa.table({"x": pa.FixedSizeListArray.from_arrays(X.ravel(), 4)})
    said = {name: check() for name, check in check_host(lambda: chain, records)}
    assert sum(line is None for line in said.values()) >= 8, said


def test_conform_names_records_and_columns_that_do_not_fit():
    wanted = pa.schema([pa.field("x", pa.int8(), nullable=False)])
    assert conform(pa.record_batch({"y": ["a"], "x": [7]}), wanted).equals(
        pa.record_batch({"x": pa.array([7], pa.int8())}).cast(wanted)
    )
    with pytest.raises(mlinfer.RecordErrors) as raised:
        conform(pa.record_batch({"x": [7, 300, None]}), wanted)
    assert raised.value.rows == [1, 2]
    with pytest.raises(mlinfer.SchemaError, match="no such column"):
        conform(pa.record_batch({"y": [1]}), wanted)


def test_records_that_the_first_model_leaves_out_are_not_made_up_for_by_the_next():
    """Three answers to three records come out, of which the second belongs to the third."""

    @mlinfer.host(inputs={"n": "double"}, outputs={"kept": "double"}, takes="numpy", version="1")
    def drops(n):
        return n[n != 2]

    @mlinfer.host(inputs={"kept": "double"}, outputs={"answer": "double"}, takes="numpy", version="1")
    def fills(kept):
        return np.append(kept, np.zeros(3))[:3]

    chain = Chain(drops, fills)
    with InferencePipeline(MemorySource([]), chain, MemoryDestination(), name="chain") as pipeline:
        assert pipeline.infer({"n": [1.0, 4.0, 3.0]})["answer"].to_pylist() == [1, 4, 3]
        with pytest.raises(ComponentError, match="model 'drops': wanted 3 answers for 3 records, found 2"):
            pipeline.infer({"n": [1.0, 2.0, 3.0]})
