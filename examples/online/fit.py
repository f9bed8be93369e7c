"""Step 1: a package for the server, and the records it was fitted on. In work of your own, `mlinfer train` does this."""

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlinfer

iris = load_iris(as_frame=True)
frame = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
model = LogisticRegression(max_iter=500).fit(frame, iris.target_names[iris.target])
mlinfer.save(
    model, "model.mlinfer", example=frame, name="iris", method=("predict", "predict_proba"), expand=True
)
pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), "flowers.parquet")
