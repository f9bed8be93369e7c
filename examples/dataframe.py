"""pandas and polars in, pandas and polars out; missing values and categories as the model was fitted on them."""

import pandas as pd
import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlinfer import InferencePipeline, RecordErrors
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource


def main() -> None:
    frame = load_diabetes(as_frame=True).data[["bmi", "bp"]]
    frame["clinic"] = ["north", "south"] * (len(frame) // 2)
    frame.loc[::10, "bp"] = None
    target = load_diabetes().target
    features = make_column_transformer((SimpleImputer(), ["bmi", "bp"]), (OneHotEncoder(), ["clinic"]))
    model = make_pipeline(features, RandomForestRegressor(20, random_state=0)).fit(frame, target)
    host = SklearnHost(model, example=frame)

    scored = MemoryDestination()
    pipeline = InferencePipeline(MemorySource(frame), host, scored, name="diabetes", keep=["clinic"])
    print(pipeline.run())  # 442 delivered, 0 rejected, exactly-once
    means = scored.table().to_pandas().groupby("clinic")["y_pred"].mean()
    print(means.index.tolist())  # ['north', 'south']

    # On data in hand: anything with columns of these names, and Arrow comes back.
    print(type(pipeline.infer(frame[:3]).to_pandas()) is pd.DataFrame)  # True
    polars = pl.DataFrame({"bmi": [0.05, -0.02], "bp": [0.02, None], "clinic": ["north", "south"]})
    print(pl.from_arrow(pipeline.infer(polars)).height)  # 2

    # The imputer takes a missing bp; nothing takes a missing clinic, or one that it has never seen.
    try:
        pipeline.infer(
            [{"bmi": 0.05, "bp": None, "clinic": "north"}, {"bmi": 0.05, "bp": 0.0, "clinic": "west"}]
        )
    except RecordErrors as errors:
        print(errors.rows)  # [1]


if __name__ == "__main__":
    main()
