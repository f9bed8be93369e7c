"""Texts to labels: from a file through scikit-learn's compiled words and through ONNX, into a database; and in hand."""

import csv
import sqlite3

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination, SqlDestination
from mlinfer.hosts import OnnxHost, SklearnHost
from mlinfer.sources import CsvSource, MemorySource

GOOD, BAD, PLAIN = ["lovely", "great", "naïve"], ["awful", "stale"], ["soup", "waiter", "the", "was", "日本"]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.permutation([*RNG.choice(PLAIN, 4), RNG.choice(GOOD + BAD)])) for _ in range(200)]
LABELS = ["good" if set(text.split()) & set(GOOD) else "bad" for text in TEXTS]
ASKED = [*TEXTS[:50], "unheard of", "", "great awful great", 'a "quoted", great\nthing', "soup " * 500]


@pytest.fixture(scope="module")
def model():
    return make_pipeline(CountVectorizer(token_pattern="[^ ]+", lowercase=False), LogisticRegression()).fit(
        TEXTS, LABELS
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    path = tmp_path_factory.mktemp("m") / "mood.mlinfer"
    mlinfer.save(model, path, example=TEXTS, method=("predict", "predict_proba"))
    return SklearnHost(path), model


def graph(model, path):
    """Words between blanks, counted, weighted, and the label as a text: a tensor of strings in, one out."""
    counting, linear = (step for _, step in model.steps)
    words = sorted(counting.vocabulary_, key=counting.vocabulary_.get)
    nodes = [
        helper.make_node("StringSplit", ["x"], ["words", "count"]),
        helper.make_node(
            "TfIdfVectorizer", ["words"], ["counted"], mode="TF", min_gram_length=1, max_gram_length=1,
            max_skip_count=0, ngram_counts=[0], ngram_indexes=list(range(len(words))), pool_strings=words,
        ),
        helper.make_node("Gemm", ["counted", "w", "b"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["probability"]),
        helper.make_node("Round", ["probability"], ["class"]),
        helper.make_node(
            "LabelEncoder", ["class"], ["label"], domain="ai.onnx.ml",
            keys_floats=[0.0, 1.0], values_strings=linear.classes_.tolist(),
        ),
    ]  # fmt: skip
    weights = {"w": linear.coef_.T.astype(np.float32), "b": linear.intercept_.astype(np.float32)}
    made = helper.make_graph(
        nodes, "mood", [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["n", 1]),
         helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 4)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=10), str(path))
    return OnnxHost(path)


def delivered(host, tmp_path):
    """Texts from a CSV file into SQLite, read back with sqlite3: the rows, and how many were rejected."""
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(ASKED)])
    pipeline = InferencePipeline(
        CsvSource(tmp_path / "in.csv", id_column="id"), host, SqlDestination(f"sqlite:///{tmp_path}/out.db", table="moods"),
        name="moods", keep=["id", "review"], columns={"x": "review"}, rejects=MemoryDestination(), require="at-least-once",
    )  # fmt: skip
    report = pipeline.run()
    rows = sqlite3.connect(tmp_path / "out.db").execute("select * from moods order by id").fetchall()
    assert report.delivered == len(rows)
    return rows, report.rejected


def test_texts_of_a_file_become_labels_through_compiled_words(compiled, tmp_path):
    host, model = compiled
    with host.open() as opened:
        assert "words counted into one product" in opened.explain()[0]
    rows, rejected = delivered(host, tmp_path)
    assert rejected == 1  # CSV has no empty text: it is no value
    texts = [text for text in ASKED if text]
    assert [row[1] for row in rows] == texts
    assert [row[2] for row in rows] == model.predict(texts).tolist()
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        found = pipeline.infer({"x": ASKED})
    assert found["y_pred"].to_pylist() == model.predict(ASKED).tolist()
    np.testing.assert_allclose(found["y_proba"].to_pylist(), model.predict_proba(ASKED), rtol=0, atol=1e-12)


def test_texts_of_a_file_become_labels_through_onnx(model, tmp_path):
    host = graph(model, tmp_path / "mood.onnx")
    rows, rejected = delivered(host, tmp_path)
    texts = [text for text in ASKED if text]
    assert (len(rows), rejected) == (len(texts), 1)
    assert [row[2] for row in rows] == model.predict(texts).tolist()
    with InferencePipeline(MemorySource([]), host, MemoryDestination()) as pipeline:
        found = pipeline.infer({"x": ASKED})
    assert found["label"].to_pylist() == model.predict(ASKED).tolist()
    np.testing.assert_allclose(found["probability"].to_pylist(), model.predict_proba(ASKED)[:, 1], atol=1e-5)
