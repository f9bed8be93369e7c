"""The same host as a batch job and over HTTP: the answers are equal."""

import json
import urllib.error
import urllib.request
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlinfer import InferencePipeline
from mlinfer.destinations import JsonLinesDestination
from mlinfer.hosts import SklearnHost
from mlinfer.sources import MemorySource


def main() -> None:
    iris = load_iris(as_frame=True)
    frame = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    model = LogisticRegression(max_iter=500).fit(frame, iris.target_names[iris.target])
    host = SklearnHost(model, example=frame, method=("predict", "predict_proba"), expand=True)
    pipeline = InferencePipeline(MemorySource(frame), host, JsonLinesDestination("asked.jsonl"), name="iris")

    with pipeline.serving() as server:
        records = frame.iloc[[0, 75, 149]].to_dict("records")
        answers = ask(server.url, records)
        print([answer["y_pred"] for answer in answers])  # ['setosa', 'versicolor', 'virginica']
        print(answers == pipeline.infer(records).to_pylist())  # True
        print(ask(server.url, {**records[0], "petal_width": None})["error"])  # 1 bad record
    pipeline.close()
    # The destination is the log of predictions.
    print(len(Path("asked.jsonl").read_text().splitlines()))  # 3


def ask(url: str, records: Any) -> Any:
    body = json.dumps(records).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chdir(folder):
        main()
