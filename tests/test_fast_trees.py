"""Trees walked by mlinfer-fast: built from this clone, equal to scikit-learn to the last bit, safe with any file."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.hosts._forms import Form
from mlinfer.sources import MemorySource

RNG = np.random.default_rng(3)
X = RNG.standard_normal((500, 6))
GAPPY = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
THREE = np.digitize(X[:, 0] + X[:, 4] / 2, [-0.5, 0.5])
MODELS = {
    "one tree": (DecisionTreeClassifier(random_state=0), X),
    "forest": (RandomForestClassifier(37, random_state=0), GAPPY),
    "forest of numbers": (ExtraTreesRegressor(20, random_state=0), X),
    "boosting": (GradientBoostingClassifier(n_estimators=9, random_state=0), X),
    "boosting of numbers": (GradientBoostingRegressor(n_estimators=20, random_state=0), X),
    "histograms": (HistGradientBoostingClassifier(max_iter=12, min_samples_leaf=3, random_state=0), GAPPY),
    "histograms of numbers": (HistGradientBoostingRegressor(max_iter=20, random_state=0), GAPPY),
}


@pytest.fixture(scope="module")
def packages(library, tmp_path_factory):
    """Each model, saved once while mlinfer-fast is there."""
    folder = tmp_path_factory.mktemp("packages")
    return {
        name: mlinfer.save(
            model.fit(records, THREE), folder / f"m{n}.mlinfer", example=records, method=asked(model)
        )
        for n, (name, (model, records)) in enumerate(MODELS.items())
    }


def asked(model):
    return "predict_proba" if hasattr(model, "predict_proba") else "predict"


def answers(path, records):
    with SklearnHost(path).open() as model:
        assert "walks down its trees" in model.explain()[0]
        kind = model.signature.inputs.types[0]
        items = pa.array(records.ravel(), from_pandas=kind.value_field.nullable)
        batch = pa.RecordBatch.from_arrays(
            [pa.FixedSizeListArray.from_arrays(items, type=kind)], schema=model.signature.inputs
        )
        return np.array(model.infer(batch).column(0).to_pylist())


def beside_thresholds(path, rng):
    """Records with one number at a threshold of the form, or one step of float64 or float32 beside it: all there are."""
    arrays = Form.load((path / "compiled.arrays").read_bytes(), "form").core.arrays
    inner = np.flatnonzero(np.isfinite(arrays["threshold"]))
    nodes = np.repeat(inner, 6)
    at, narrow = arrays["threshold"][nodes], arrays["threshold"][nodes].astype(np.float32)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    near = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
    near += [narrow, np.nextafter(narrow, up), np.nextafter(narrow, down)]
    records = X[rng.integers(0, len(X), len(nodes))].copy()
    places = (arrays["column"][nodes] & 0x7FFFFFFF).astype(int)
    records[np.arange(len(nodes)), places] = np.choose(np.arange(len(nodes)) % 6, near)
    return records


@pytest.mark.parametrize("name", MODELS)
def test_ten_thousand_records_are_answered_as_scikit_learn_does(packages, name):
    rng, (model, example) = np.random.default_rng(1), MODELS[name]
    beside = beside_thresholds(packages[name], rng)
    far = rng.normal(0, 9, (max(2000, 10_000 - len(beside)), 6))
    if np.isnan(example).any():
        far[rng.random(far.shape) < 0.1] = np.nan
    records = np.concatenate([beside, far])
    found, wanted = answers(packages[name], records), getattr(model, asked(model))(records)
    if "boost" in name or "hist" in name:  # the sums are the same, and exp is numpy's
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_records_at_once_gives_the_same_bits_and_so_does_numpy(packages, name):
    form = Form.load((packages[name] / "compiled.arrays").read_bytes(), "form").core
    assert form._fast is not None
    from mlinfer.hosts._forms._columns import Table

    records = np.random.default_rng(2).normal(0, 2, (4200, 6))
    whole = form.scores(Table(records))
    for size in (1, 2, 15, 16, 17, 33, 4113):
        np.testing.assert_array_equal(form.scores(Table(records[:size])), whole[:size])
    np.testing.assert_array_equal(form.in_numpy().scores(Table(records)), whole)
    np.testing.assert_array_equal(form.in_numpy().scores(Table(records[:1])), whole[:1])


def test_a_package_runs_where_mlinfer_fast_is_missing_through_the_whole_pipeline(packages, monkeypatch):
    with_it = answers(packages["forest"], GAPPY)
    monkeypatch.setitem(sys.modules, "mlinfer_fast", None)
    destination = MemoryDestination()
    InferencePipeline(MemorySource(GAPPY), SklearnHost(packages["forest"]), destination, name="numpy").run()
    np.testing.assert_array_equal(np.array(destination.table()["y_proba"].to_pylist()), with_it)


def test_the_proof_covers_the_walk_in_numpy_too(library, monkeypatch, tmp_path):
    from mlinfer.hosts._forms._walks import Walks

    right = Walks._leaf
    monkeypatch.setattr(Walks, "_leaf", lambda self, numbers: np.roll(right(self, numbers), 1, axis=1))
    model, records = MODELS["forest"]
    path = mlinfer.save(model.fit(records, THREE), tmp_path / "m.mlinfer", example=records)
    assert json.loads((path / "manifest.json").read_text())["compiled"]["form"] is None


NODE = np.dtype([("threshold", "<f8"), ("column", "<u4"), ("left", "<u4")])
LEAF = 1 << 31


def small():
    """x[1] at most 0.5: 1.0, else 2.0."""
    nodes = np.array([(0.5, 1, 1), (np.inf, LEAF, 1), (np.inf, LEAF, 2)], NODE)
    return nodes, np.array([0.0, 1.0, 2.0]), np.zeros(1, np.uint32)


def test_a_small_tree_by_hand(library):
    scores = np.zeros(3)
    library.Trees(*small(), 2, 1, True).add(np.array([[9.0, 0.5], [0.0, 0.6], [0.0, np.nan]]), scores)
    assert scores.tolist() == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("node", "field", "value"),
    [
        (0, "column", 2), (0, "left", 0), (0, "left", 2), (0, "left", 7), (1, "left", 0),
        (1, "threshold", 1.0), (1, "column", 0), (2, "left", 1), (1, "threshold", np.nan),
    ],
)  # fmt: skip
def test_nodes_out_of_place_are_refused_before_they_are_walked(library, node, field, value):
    nodes, values, roots = small()
    nodes[node][field] = value
    with pytest.raises(ValueError, match=r"out of place|lets go"):
        library.Trees(nodes, values, roots, 2, 1, True)


def test_buffers_of_another_size_are_refused(library):
    nodes, values, roots = small()
    with pytest.raises(ValueError, match="root out of place"):
        library.Trees(nodes, values, roots + 3, 2, 1, True)
    with pytest.raises(ValueError, match="number of values"):
        library.Trees(nodes, values[:2], roots, 2, 1, True)
    trees = library.Trees(nodes, values, roots, 2, 1, True)
    for records, scores in (
        (np.zeros((2, 2)), np.zeros(1)),
        (np.zeros(3), np.zeros(1)),
        (np.zeros((1, 2), np.float32), np.zeros(1)),
    ):
        with pytest.raises(ValueError, match="another size"):
            trees.add(records, scores)
    with pytest.raises(ValueError, match="not C-contiguous"):
        trees.add(np.zeros((4, 4))[:, ::2], np.zeros(4))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    nodes=st.binary(max_size=160),
    counts=st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
    turns=st.booleans(),
)
def test_any_bytes_are_refused_or_walked_to_an_end(library, nodes, counts, turns):
    values = np.zeros(len(nodes) // 16 * (1 if turns else max(counts[1], 0)))
    try:
        trees = library.Trees(nodes, values, np.zeros(1, np.uint32), *counts, turns)
    except ValueError:
        return
    trees.add(np.zeros((3, counts[0])), np.zeros((3, counts[1])))
