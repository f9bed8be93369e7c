"""Train on wines, let the model prove itself on bottles that it has not seen, run its package, and see a weak one refused."""

import tempfile
from pathlib import Path

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlinfer
from mlinfer import ConfirmationError
from mlinfer.hosts import SklearnHost, manifest
from mlinfer.lifecycle import ByKey

wines = load_wine()
table = {name: wines.data[:, place] for place, name in enumerate(wines.feature_names)}
table |= {"bottle": range(len(wines.target)), "grower": wines.target}
split = ByKey("bottle", test=0.4, calibration=0.2)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "growers.mlinfer"
    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = mlinfer.train(table, model, target="grower", split=split, accept={"accuracy": 0.8}, to=path)

    score = found["accuracy"]
    print(score.method, score.low > 0.8)  # exact True
    print(manifest(path)["training"]["calibration"]["scores"])  # 1 - probability of the true class
    with SklearnHost(path).open() as opened:
        print(opened.signature.model_id)  # growers

    try:
        mlinfer.train(
            table, RandomForestClassifier(), target="grower", features=["ash"], split=split,
            accept={"accuracy": 0.8}, to=Path(folder) / "by-ash.mlinfer",
        )  # fmt: skip
    except ConfirmationError as error:
        print(error.training["accuracy"].value < 0.8)  # True
    print([one.name for one in Path(folder).iterdir()])  # ['growers.mlinfer']
