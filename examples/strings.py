"""A table with strings, numbers and gaps: one-hot encoding, imputation and a forest, saved and run without scikit-learn."""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import SqlDestination
from mlinfer.hosts import SklearnHost, manifest
from mlinfer.sources import CsvSource


def main() -> None:
    houses = pd.DataFrame(
        {
            "city": ["Rome", "Oslo", "Bonn"] * 40,
            "rooms": [1, 2, 3, 4] * 30,
            "area": [40.0, 62.5, None, 90.0] * 30,
        }
    )
    dear = (houses["city"] == "Oslo") & (houses["rooms"] > 2)
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["city"]), (SimpleImputer(), ["rooms", "area"])
        ),
        RandomForestClassifier(100, random_state=0),
    ).fit(houses, dear.map({True: "dear", False: "cheap"}))
    mlinfer.save(model, "houses.mlinfer", example=houses)
    print(manifest("houses.mlinfer")["compiled"]["form"])  # bit masks of its trees (numpy)

    Path("in.csv").write_text("id,city,rooms,area\na,Oslo,4,90\nb,Oslo,3,\nc,Paris,1,40\nd,Rome,many,40\n")
    database = "sqlite:///houses.db"
    pipeline = InferencePipeline(
        CsvSource("in.csv", id_column="id"),
        SklearnHost("houses.mlinfer"),
        SqlDestination(database, table="answers"),
        name="houses",
        keep=["id"],
        rejects=SqlDestination(database, table="rejects"),
    )
    print(pipeline.run())  # 3 delivered, 1 rejected, exactly-once
    print(pipeline.infer([{"city": "Atlantis", "rooms": 2, "area": None}])["y_pred"].to_pylist())  # ['cheap']


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
