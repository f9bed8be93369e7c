"""Triton Inference Server through PyTriton as its manual shows it: one Python model, its dynamic batcher on.

MODEL=model.joblib python benchmarks/servers/pytriton_app.py PORT GRPC_PORT METRICS_PORT
"""

import os
import sys
import sysconfig

import joblib
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = joblib.load(os.environ["MODEL"])


@batch
def predict(x):
    """Labels."""
    return [model.predict(x).reshape(-1, 1).astype(np.int64)]


if __name__ == "__main__":
    http, grpc, metrics = map(int, sys.argv[1:])
    # Its stub loads the system's libpython of the same minor version, whose RLock may lack what this standard library asks of it
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    config = TritonConfig(
        http_address="127.0.0.1", http_port=http, grpc_port=grpc, metrics_port=metrics, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=predict,
            inputs=[Tensor(name="x", dtype=np.float64, shape=(30,))],
            outputs=[Tensor(name="y", dtype=np.int64, shape=(1,))],
            config=ModelConfig(max_batch_size=256),
            strict=False,
        )
        triton.serve()
