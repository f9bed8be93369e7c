"""A newer model takes over while a server answers: no restart, no request lost, and every answer says who gave it."""

import tempfile
import time
from pathlib import Path

import httpx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import mlinfer
from mlinfer import InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import SklearnHost, manifest
from mlinfer.sources import MemorySource


def main() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, :5]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cancer.mlinfer"
        mlinfer.save(LogisticRegression(max_iter=5000).fit(x[:200], y[:200]), path, example=x)
        first = manifest(path)["version"]

        host = SklearnHost(path, watch=True)
        with InferencePipeline(MemorySource(x), host, MemoryDestination()).serving("127.0.0.1:0") as server:
            ask = {"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP64", "data": x[0].tolist()}]}
            versions = [_version(server.url, ask)]

            mlinfer.save(LogisticRegression(max_iter=5000).fit(x, y), path, replace=True, example=x)
            second = manifest(path)["version"]
            while versions[-1] != second:  # within a second
                versions.append(_version(server.url, ask))
                time.sleep(0.05)

        print("versions that answered:", len(set(versions)))  # versions that answered: 2
        in_order = versions == sorted(versions, key=[first, second].index)
        print("one after the other:", in_order)  # one after the other: True


def _version(url: str, ask: dict[str, object]) -> str:
    reply = httpx.post(f"{url}/v2/models/cancer/infer", json=ask)
    reply.raise_for_status()
    version: str = reply.json()["model_version"]
    return version


if __name__ == "__main__":
    main()
