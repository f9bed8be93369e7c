"""Microseconds a record on one thread of one core: scikit-learn, the compiled form with and without mlinfer-fast, ONNX Runtime.

    pip install skl2onnx packages/mlinfer-fast && python benchmarks/forms.py [part of a model's name]

`model.infer` with a record batch for 1, 256 and 65,536 records, and the whole `pipeline.infer` of one record. Everybody
takes turns of at least a hundredth of a second; medians. Without skl2onnx or mlinfer-fast their rows are missing.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy looks

import importlib
import importlib.util
import platform
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import mlinfer
from mlinfer import InferencePipeline, to_arrow
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import OnnxHost, Selected, SklearnHost
from mlinfer.sources import MemorySource

SIZES = (1, 256, 65_536)
SECONDS = 3.0  # for each size of each model, shared by all who take turns
TURN = 0.01
RNG = np.random.default_rng(1)


def numbers(count):
    known, labels = make_classification(20_000, 20, n_informative=10, random_state=0)
    return known, labels, RNG.standard_normal((count, 20)) * known.std(0) + known.mean(0)


def strings(count):
    def frame(size):
        columns = {f"n{place}": RNG.standard_normal(size) for place in range(6)}
        for name, kinds in (("city", 30), ("shop", 200)):
            columns[name] = np.array([f"{name}-{k}" for k in range(kinds)])[RNG.integers(0, kinds, size)]
        return pd.DataFrame(columns)

    known = frame(20_000)
    return known, (known["n0"] + (known["city"] < "city-2") > 0.5).astype(int).to_numpy(), frame(count)


def texts(count):
    words = np.array([f"word{n}" for n in range(5000)])

    def some(size):
        places = (RNG.zipf(1.3, (size, 20)) - 1) % len(words)
        return [" ".join(row[: 5 + n % 16]) for n, row in enumerate(words[places])]

    known = some(20_000)
    return known, np.array([len(text) % 2 for text in known]), some(count)


MIXED = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore"), ["city", "shop"]), remainder=StandardScaler()
)
MODELS = {
    "linear regression": (numbers, LinearRegression()),
    "scaler, logistic": (numbers, make_pipeline(StandardScaler(), LogisticRegression())),
    "strings, logistic": (strings, make_pipeline(MIXED, LogisticRegression(max_iter=500))),
    "texts, logistic": (texts, make_pipeline(TfidfVectorizer(), LogisticRegression())),
    "100 histogram trees": (numbers, HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)),
    "100 boosted trees": (numbers, GradientBoostingClassifier(n_estimators=100, random_state=0)),
    "100 trees of depth 6": (numbers, RandomForestClassifier(100, max_depth=6, random_state=0)),
    "100 full trees": (numbers, RandomForestClassifier(100, random_state=0)),
    "neural network": (numbers, make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=20, random_state=0))),
}  # fmt: skip


def onnx_file(model, known, path, *, single=False):
    """By skl2onnx, in float64 where it can, else in float32 (`single`); None: it is absent, or cannot."""
    if importlib.util.find_spec("skl2onnx") is None:
        return None
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    kind = FloatTensorType if single else DoubleTensorType
    if isinstance(known, pd.DataFrame):
        column = {"f": FloatTensorType, "O": StringTensorType, "T": StringTensorType}
        types = [(name, column[known[name].to_numpy().dtype.kind]([None, 1])) for name in known]
    elif isinstance(known, list):
        types = [("x", StringTensorType([None, 1]))]
    else:
        types = [("x", kind([None, known.shape[1]]))]
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    try:
        made = to_onnx(model, initial_types=types, options=options, target_opset={"": 21, "ai.onnx.ml": 3})
        path.write_bytes(made.SerializeToString())
        with OnnxHost(path).open() as opened:
            name = opened.signature.outputs.names[-1]
        return Selected(OnnxHost(path), {"y": name})
    except Exception as error:  # noqa: BLE001 - a converter that cannot is a row that is missing
        if not single:
            return onnx_file(model, known, path, single=True)
        print(f"ONNX: {type(error).__name__}: {str(error).splitlines()[0][:400]}", file=sys.stderr)
        return None


def hosts(model, known, folder):
    """By name: all that answer this model."""
    method = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    found = {}
    for name, hidden in (("compiled", True), ("compiled, mlinfer-fast", False)):
        fast = sys.modules.pop("mlinfer_fast", None)
        if hidden:
            sys.modules["mlinfer_fast"] = None
        path = mlinfer.save(model, folder / f"{hidden}.mlinfer", example=known, method=method)
        host = SklearnHost(path)
        with host.open() as opened:
            runs = opened.explain()[0]
        if hidden:
            found["scikit-learn"] = (SklearnHost(path, compile="never"), True)
        if not runs.startswith("scikit-learn") and (hidden or (fast and "walks" in runs)):
            found[name] = (host, hidden)
        sys.modules.pop("mlinfer_fast", None)
        if fast is not None:
            sys.modules["mlinfer_fast"] = fast
    if (host := onnx_file(model, known, folder / "model.onnx")) is not None:
        found["ONNX Runtime"] = (host, True)
    return found


def batch_of(model, records):
    table = to_arrow(records)
    taken = mlinfer.conform(table.combine_chunks().to_batches()[0], model.signature.inputs)
    return pa.RecordBatch.from_arrays(taken.columns, schema=model.signature.inputs)


def turns(calls, records):
    """Median microseconds a record of each call, everybody in turn until the time is up."""
    for call in calls:
        call()
    times = [[] for _ in calls]
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, seen in zip(calls, times, strict=True):
            start, count = time.perf_counter(), 0
            while (spent := time.perf_counter() - start) < TURN:
                call()
                count += 1
            seen.append(spent / count)
    return [statistics.median(seen) / records * 1e6 for seen in times]


def measure(found, asked):
    """By who answers: the times, and the answers to all records."""
    with ExitStack() as stack:
        models, lines = [], []
        for host, hidden in found.values():
            fast = sys.modules.pop("mlinfer_fast", None)
            if hidden:
                sys.modules["mlinfer_fast"] = None
            models.append(stack.enter_context(host.open()))
            lines.append(stack.enter_context(InferencePipeline(MemorySource([]), host, MemoryDestination())))
            lines[-1].infer(asked[:1])  # the model is opened here
            sys.modules.pop("mlinfer_fast", None)
            if fast is not None:
                sys.modules["mlinfer_fast"] = fast
        times = []
        for size in SIZES:
            batches = [batch_of(model, asked[:size]) for model in models]
            times.append(
                turns([lambda m=m, b=b: m.infer(b) for m, b in zip(models, batches, strict=True)], size)
            )
        times.append(turns([lambda p=p: p.infer(asked[:1]) for p in lines], 1))
        answers = [np.array(m.infer(b).column(0).to_pylist()) for m, b in zip(models, batches, strict=True)]
    return list(zip(*times, strict=True)), answers


def rows(name, source, model, folder):
    known, labels, asked = source(SIZES[-1])
    found = hosts(model.fit(known, labels), known, folder)
    times, answers = measure(found, asked)
    for who, mine, answer in zip(found, times, answers, strict=True):
        cells = [f"{one:,.3g}" if who == "scikit-learn" else f"{one:,.3g} ({first / one:.2g} x)" for one, first in zip(mine, times[0], strict=True)]  # fmt: skip
        if who == "scikit-learn":
            cells += ["", ""]
        else:
            flips = int((answer.argmax(1) != answers[0].argmax(1)).sum()) if answer.ndim > 1 else "-"
            cells += [f"{np.abs(answer - answers[0]).max():.1g}", f"{flips}"]
        print(f"| {name} | {who} | {' | '.join(cells)} |", flush=True)
        name = ""


def main() -> None:
    if importlib.util.find_spec("mlinfer_fast"):
        importlib.import_module("mlinfer_fast")
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    packages = ("mlinfer", "numpy", "scikit-learn", "pyarrow", "onnxruntime", "skl2onnx")
    there = [
        f"{one} {version(one)}"
        for one in packages
        if importlib.util.find_spec(one.replace("scikit-learn", "sklearn"))
    ]
    print(
        f"Python {platform.python_version()}, {', '.join(there)}; load {os.getloadavg()[0]:.1f} at the start\n"
    )
    print(
        "| model | runs | alone | in 256 | in 65,536 | pipeline.infer, one | largest difference | other labels |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, (source, model) in MODELS.items():
        if all(part in name for part in sys.argv[1:]):
            with tempfile.TemporaryDirectory() as folder:
                rows(name, source, model, Path(folder))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
