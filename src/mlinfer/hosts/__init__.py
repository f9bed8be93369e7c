"""What runs a model over records. A host is imported when it is named, so that the others cost nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlinfer.hosts._chain import Chain
    from mlinfer.hosts._function import FunctionHost, host
    from mlinfer.hosts._onnx import OnnxHost
    from mlinfer.hosts._package import manifest
    from mlinfer.hosts._package_writing import Origin, expect_place
    from mlinfer.hosts._pictures import Pictures, Png
    from mlinfer.hosts._saving import save
    from mlinfer.hosts._selected import Selected
    from mlinfer.hosts._sklearn import SklearnHost

__all__ = [
    "Chain",
    "FunctionHost",
    "OnnxHost",
    "Origin",
    "Pictures",
    "Png",
    "Selected",
    "SklearnHost",
    "expect_place",
    "host",
    "manifest",
    "save",
]

_WHERE = {
    "Chain": "mlinfer.hosts._chain",
    "FunctionHost": "mlinfer.hosts._function",
    "OnnxHost": "mlinfer.hosts._onnx",
    "Origin": "mlinfer.hosts._package_writing",
    "Pictures": "mlinfer.hosts._pictures",
    "Png": "mlinfer.hosts._pictures",
    "Selected": "mlinfer.hosts._selected",
    "SklearnHost": "mlinfer.hosts._sklearn",
    "expect_place": "mlinfer.hosts._package_writing",
    "host": "mlinfer.hosts._function",
    "manifest": "mlinfer.hosts._package",
    "save": "mlinfer.hosts._saving",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_WHERE[name]), name)
