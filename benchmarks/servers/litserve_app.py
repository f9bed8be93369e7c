"""LitServe as its manual shows it: one worker process that holds the model, without batching.

MODEL=model.joblib python benchmarks/servers/litserve_app.py PORT
"""

import os
import sys

import joblib
import litserve
import numpy as np


class Api(litserve.LitAPI):
    """Decode, predict, encode."""

    def setup(self, device):  # noqa: ARG002
        """Load the model."""
        self.model = joblib.load(os.environ["MODEL"])

    def decode_request(self, request):
        """Records as an array."""
        return np.array(request["x"])

    def predict(self, x):
        """Labels."""
        return self.model.predict(x)

    def encode_response(self, output):
        """Labels as a list."""
        return output.tolist()


if __name__ == "__main__":
    litserve.LitServer(Api(), accelerator="cpu").run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False
    )
