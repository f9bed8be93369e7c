"""Make the data, the models and the expected answers of the benchmark jobs.

Every generator is seeded, so two machines measure the same work. A folder holds ``in/`` (what a
contender reads), ``model.joblib`` and ``expected.npz`` (what ``check.py`` compares with). It is made
under a temporary name and renamed when complete, so a half-made one is never used.

    python benchmarks/data.py J1 5000000
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CACHE = Path(__file__).parent / ".cache"
FEATURES = [f"f{i}" for i in range(20)]
STRINGS = [f"s{i}" for i in range(5)]
NUMBERS = [f"x{i}" for i in range(10)]
BAD_SHARE = 0.02
TRAINING_ROWS = 50_000
SEED = 2013


def logistic(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


# -- J1: wide Parquet -------------------------------------------------------------------------


def j1_features(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Column-major, each column with a centre and a spread of its own, so that scaling matters."""
    x = rng.standard_normal((len(FEATURES), rows)).T
    x *= np.linspace(0.5, 20.0, len(FEATURES))
    x += np.linspace(-30.0, 30.0, len(FEATURES))
    return x


def j1_model(*, trees: bool = False) -> object:
    rng = np.random.default_rng(SEED)
    x = j1_features(rng, TRAINING_ROWS)
    z = ((x - x.mean(axis=0)) / x.std(axis=0)) @ rng.standard_normal(len(FEATURES)) / 3
    late = rng.random(len(z)) < logistic(z)
    if trees:
        model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=SEED)
        return model.fit(x, late)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x, late)


def j1_strings(rng: np.random.Generator, rows: int) -> dict[str, pa.DictionaryArray]:
    """Low-cardinality strings: 3, 8, 20, 50 and 120 values."""
    columns = {}
    for name, distinct in zip(STRINGS, (3, 8, 20, 50, 120), strict=True):
        values = pa.array([f"{name}-value-{i}" for i in range(distinct)])
        codes = pa.array(rng.integers(distinct, size=rows, dtype=np.int32))
        columns[name] = pa.DictionaryArray.from_arrays(codes, values)
    return columns


def j1_file(path: Path, model: object, ids: range, bad_share: float) -> dict[str, np.ndarray]:
    """Write one file; return its expected scores (NaN for a bad record) and string codes."""
    rows = len(ids)
    rng = np.random.default_rng([SEED, ids.start])
    x = j1_features(rng, rows)
    strings = j1_strings(rng, rows)
    bad = rng.random(rows) < bad_share
    hole = rng.integers(len(FEATURES), size=rows)
    columns: dict[str, pa.Array] = {"id": pa.array(np.arange(ids.start, ids.stop))}
    for i, name in enumerate(FEATURES):
        columns[name] = pa.array(x[:, i], mask=bad & (hole == i))
    columns |= {name: column.cast(pa.string()) for name, column in strings.items()}
    seconds = 1_700_000_000 + np.arange(ids.start, ids.stop)
    columns["at"] = pa.array(seconds * 1_000_000, pa.timestamp("us"))
    pq.write_table(pa.table(columns), path, row_group_size=100_000, use_dictionary=STRINGS)
    score = model.predict_proba(x)[:, 1] if rows else np.empty(0)
    codes = {name: column.indices.to_numpy().astype(np.int16) for name, column in strings.items()}
    return {"score": np.where(bad, np.nan, score), **codes}


def make_j1(folder: Path, rows: int, bad_share: float = 0.0, *, trees: bool = False) -> None:
    model = j1_model(trees=trees)
    joblib.dump(model, folder / "model.joblib")
    if not trees:
        scaler, regression = model[0], model[1]
        weights = regression.coef_[0] / scaler.scale_
        bias = regression.intercept_[0] - scaler.mean_ @ weights
        np.savez(folder / "folded.npz", weights=weights, bias=bias)
    edges = np.linspace(0, rows, 11, dtype=int)
    parts = [
        j1_file(folder / "in" / f"part-{i:02}.parquet", model, range(a, b), bad_share)
        for i, (a, b) in enumerate(pairwise(edges))
    ]
    np.savez(folder / "expected.npz", **{key: np.concatenate([p[key] for p in parts]) for key in parts[0]})


# -- J2: JSON lines ---------------------------------------------------------------------------


def make_j2(folder: Path, rows: int) -> None:
    rng = np.random.default_rng([SEED, 2])
    x = rng.standard_normal((max(rows, TRAINING_ROWS), len(NUMBERS))).round(5)
    labels = rng.random(len(x)) < logistic(x @ rng.standard_normal(len(NUMBERS)))
    model = LogisticRegression().fit(x[:TRAINING_ROWS], labels[:TRAINING_ROWS])
    joblib.dump(model, folder / "model.joblib")
    np.savez(folder / "light.npz", weights=model.coef_[0], bias=model.intercept_[0])
    x = x[:rows]
    texts = make_texts(rng, rows)
    with (folder / "in" / "records.jsonl").open("w", encoding="utf-8") as out:
        for i, (numbers, text) in enumerate(zip(x.tolist(), texts, strict=True)):
            out.write(json.dumps({"id": i, **dict(zip(NUMBERS, numbers, strict=True)), "text": text}) + "\n")
    np.savez(folder / "expected.npz", score=model.predict_proba(x)[:, 1])


# -- J3: short texts --------------------------------------------------------------------------


def make_texts(rng: np.random.Generator, rows: int, words: int = 5_000) -> list[str]:
    """Texts of 4 to 14 words, the frequent words as frequent as in a natural language (Zipf)."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    spelled = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, words)]
    lengths = rng.integers(4, 15, rows)
    share = 1.0 / np.arange(1, words + 1)
    chosen = rng.choice(words, lengths.sum(), p=share / share.sum()).tolist()
    ends = lengths.cumsum().tolist()
    return [
        " ".join([spelled[i] for i in chosen[end - n : end]])
        for n, end in zip(lengths.tolist(), ends, strict=True)
    ]


def make_j3(folder: Path, rows: int) -> None:
    rng = np.random.default_rng([SEED, 3])
    texts = make_texts(rng, rows + 20_000)
    training, texts = texts[rows:], texts[:rows]
    labels = np.array([len(text) % 3 == 0 or "a" in text[:3] for text in training])
    model = make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=SEED))
    joblib.dump(model.fit(training, labels), folder / "model.joblib")
    edges = np.linspace(0, rows, 5, dtype=int)
    for i, (a, b) in enumerate(pairwise(edges)):
        table = pa.table({"id": np.arange(a, b), "text": texts[a:b]})
        pq.write_table(table, folder / "in" / f"part-{i:02}.parquet", row_group_size=25_000)
    np.savez(folder / "expected.npz", score=model.predict_proba(texts)[:, 1])


# -- cache ------------------------------------------------------------------------------------

MAKERS = {
    "J1": make_j1,
    "J1-bad": lambda folder, rows: make_j1(folder, rows, BAD_SHARE),
    "J1-hgb": lambda folder, rows: make_j1(folder, rows, trees=True),
    "J2": make_j2,
    "J3": make_j3,
}


def prepared(kind: str, rows: int, cache: Path = CACHE) -> Path:
    """The folder with this data set, made now if it isn't there."""
    recipe = Path(__file__).read_bytes() + sklearn.__version__.encode()
    folder = cache / f"{kind.lower()}-{rows}-{hashlib.sha256(recipe).hexdigest()[:8]}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "in").mkdir(parents=True)
    MAKERS[kind](unfinished, rows)
    unfinished.rename(folder)
    return folder


if __name__ == "__main__":
    print(prepared(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:4])))
