"""An ONNX Runtime session, made of bytes."""

from __future__ import annotations

import os
from typing import Any

from mlinfer import ConfigError


def runtime() -> Any:
    """The library, told to report nothing. Raises ConfigError: it is not installed.

    From 1.29 on it tells its maker about models, kept files and an identifier on disk; it looks at this variable once, when
    it is imported. Whoever wants that sets `ORT_DISABLE_TELEMETRY=0`.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        msg = "an ONNX model wants ONNX Runtime, which is not installed: pip install 'mlinfer[onnx]'"
        raise ConfigError(msg) from error
    return onnxruntime


def session(content: bytes, where: str, *, threads: int) -> Any:
    """A session on the processor. Bytes have no folder, so that tensors in other files cannot be read.

    Raises ConfigError: ONNX Runtime is not installed or refuses the model.
    """
    library = runtime()
    options = library.SessionOptions()
    # more would wait for each other by turning in circles
    options.intra_op_num_threads = min(threads, os.cpu_count() or 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised; it need not be printed as well
    try:
        return library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except errors() as error:
        msg = f"{where}: wanted a model that ONNX Runtime can run, found {said(error)}"
        raise ConfigError(msg) from error


def errors() -> tuple[type[Exception], ...]:
    """What the library raises: its own errors have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def said(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
