"""FastAPI as its manual shows it: a typed body, an async handler, scikit-learn in the handler.

MODEL=model.joblib uvicorn --app-dir benchmarks/servers fastapi_app:app
"""

import os

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel


class Asked(BaseModel):
    x: list[list[float]]


app = FastAPI()
model = joblib.load(os.environ["MODEL"])


@app.post("/predict")
async def predict(asked: Asked) -> list[int]:
    """Answer all records of a request at once."""
    return model.predict(np.array(asked.x)).tolist()
