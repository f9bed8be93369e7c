"""BentoML as its manual shows it: a service class with one method.

MODEL=model.joblib bentoml serve bentoml_app:Classifier --working-dir benchmarks/servers
"""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class Classifier:
    """The model, and how it is asked."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api
    def predict(self, x: list[list[float]]) -> list[int]:
        """Labels."""
        return self.model.predict(np.array(x)).tolist()
