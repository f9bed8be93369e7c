"""Compiled forms beside scikit-learn, one thread each: microseconds a record alone, in 256 and in 65,536, best of five.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/forms.py

Asks the models themselves (`infer` with a record batch), then, for one record, the whole `pipeline.infer`.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource

SIZES = (1, 256, 65_536)
MODELS = {
    "scaler, logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "100 histogram trees": HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0),
    "100 boosted trees": GradientBoostingClassifier(n_estimators=100, random_state=0),
    "100 trees of depth 6": RandomForestClassifier(100, max_depth=6, random_state=0),
    "100 full trees": RandomForestClassifier(100, random_state=0),
}


def best(call, records: int) -> float:
    """Microseconds a record."""
    call()
    times = []
    for _ in range(5):
        calls = max(1, 2_000 // records // 10)
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls / records)
    return min(times) * 1e6


def batch_of(model, records):
    kind = model.signature.inputs.types[0]
    return pa.RecordBatch.from_arrays(
        [pa.FixedSizeListArray.from_arrays(pa.array(records.ravel()), type=kind)],
        schema=model.signature.inputs,
    )


def measure(path: Path, x: np.ndarray) -> tuple[dict[str, list[float]], float]:
    """By how it is compiled: the times; and the largest difference of a probability."""
    times: dict[str, list[float]] = {}
    answers = []
    for how in ("never", "auto"):
        host = SklearnHost(path, compile=how)
        with host.open() as model:
            batches = [batch_of(model, x[:size]) for size in SIZES]
            times[how] = [best(lambda b=batch: model.infer(b), len(batch)) for batch in batches]
            answers.append(np.array(model.infer(batches[1]).column(0).flatten()))
        with InferencePipeline(MemorySource(x[:1]), host, MemoryDestination()) as pipeline:
            times[how].append(best(lambda p=pipeline: p.infer(x[:1]), 1))
    return times, float(np.abs(answers[0] - answers[1]).max())


def main() -> None:
    warnings.simplefilter("ignore")
    known, labels = make_classification(20_000, 20, n_informative=10, random_state=0)
    x = np.random.default_rng(1).standard_normal((SIZES[-1], 20)) * known.std(0) + known.mean(0)
    print("| | alone | in 256 | in 65,536 | pipeline.infer, one | largest difference |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, model in MODELS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = mlinfer.save(
                model.fit(known, labels), Path(folder) / "m.mlinfer", example=known, method="predict_proba"
            )
            times, difference = measure(path, x)
        pairs = zip(times["never"], times["auto"], strict=True)
        cells = [f"{slow:,.3g} → {fast:,.3g} ({slow / fast:.2g} x)" for slow, fast in pairs]
        print(f"| {name} | {' | '.join(cells)} | {difference:.1g} |", flush=True)


if __name__ == "__main__":
    main()
