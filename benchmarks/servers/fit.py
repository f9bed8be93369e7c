"""Fit the two models in the environment of one server, and keep them as that server wants them.

python benchmarks/servers/fit.py FOLDER
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": RandomForestClassifier(100, max_depth=8, random_state=0),
}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = make_classification(5000, 30, n_informative=10, random_state=0)
    asked = np.round(x[:100], 6)
    expected = {}
    for name, model in MODELS.items():
        model.fit(x, y)
        joblib.dump(model, folder / f"{name}.joblib")
        expected[name] = model.predict(asked).tolist()
        package = folder / f"{name}.mlinfer"
        if find_spec("mlinfer") and not package.exists():
            import mlinfer

            mlinfer.save(model, package, example=x[:5])
    (folder / "asked.json").write_text(json.dumps({"records": asked.tolist(), "expected": expected}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
