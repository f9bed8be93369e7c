"""Ray Serve as its manual shows it: a deployment of one replica; with `batching`, its decorator for that.

MODEL=model.joblib python benchmarks/servers/ray_app.py PORT [batching]
"""

import os
import signal
import sys

import joblib
import numpy as np
import ray
from ray import serve
from starlette.requests import Request


class Classifier:
    """The model, and how it is asked."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    async def __call__(self, request: Request) -> list[int]:
        """Labels."""
        asked = await request.json()
        return self.model.predict(np.array(asked["x"])).tolist()


class Batching(Classifier):
    """What came within 2 ms is answered at once."""

    async def __call__(self, request: Request) -> list[int]:
        """Labels."""
        asked = await request.json()
        return await self.predict(asked["x"])

    @serve.batch(max_batch_size=256, batch_wait_timeout_s=0.002)
    async def predict(self, requests: list[list[list[float]]]) -> list[list[int]]:
        """Labels, request by request."""
        found = self.model.predict(np.concatenate([np.array(one) for one in requests]))
        ends = np.cumsum([len(one) for one in requests])
        return [part.tolist() for part in np.split(found, ends[:-1])]


if __name__ == "__main__":
    ray.init(include_dashboard=False, object_store_memory=100 * 2**20, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    chosen = Batching if "batching" in sys.argv else Classifier
    deployment = serve.deployment(chosen, num_replicas=1, max_ongoing_requests=256)
    serve.run(deployment.bind(), route_prefix="/predict")
    signal.pause()
