"""Save a model: the package holds a compiled form, proven to answer the same, that runs without scikit-learn."""

import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost, manifest
from mlinfer.sources import MemorySource


def main() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = mlinfer.save(model, Path(folder) / "cancer.mlinfer", example=x)
        print(manifest(path)["compiled"]["form"])  # bit masks of its trees (numpy)

        pipeline = InferencePipeline(MemorySource(x), SklearnHost(path), MemoryDestination(), name="cancer")
        print(pipeline.run())  # 569 delivered, 0 rejected, exactly-once
        assert pipeline.infer(x)["y_pred"].to_pylist() == model.predict(x).tolist()


if __name__ == "__main__":
    main()
