"""skops without its survey: what it trusts by itself is looked up only when our own list does not settle the matter.

When it is imported, skops asks every module of scikit-learn and SciPy for its public types: most of a second before the
first model is loaded. Here the four lists that come of it are put off until somebody reads them. Whoever uses skops beside
mlinfer, in the same process, sees no difference but the time.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from mlinfer.hosts._scikit_learn import scikit_learn

SURVEY = "skops.io._trusted_types"
PUT_OFF = (
    "NUMPY_UFUNC_TYPE_NAMES",
    "SCIPY_UFUNC_TYPE_NAMES",
    "SKLEARN_ESTIMATOR_TYPE_NAMES",
    "SKLEARN_INTERNAL_TYPE_NAMES",
)
_our_list_decides: ContextVar[bool] = ContextVar("our_list_decides", default=False)


def skops_io() -> ModuleType:
    """The module `skops.io`."""
    if "skops.io" not in sys.modules:
        _import_without_survey()
    return importlib.import_module("skops.io")


@contextmanager
def our_list_decides() -> Iterator[None]:
    """While the block runs, skops trusts none of the surveyed types by itself."""
    token = _our_list_decides.set(True)
    try:
        yield
    finally:
        _our_list_decides.reset(token)


def _import_without_survey() -> None:
    """Import skops.io with lists that are put off; with its own if it is not built as we know it."""
    scikit_learn()
    importlib.import_module("skops")
    sys.modules[SURVEY] = _stand_in()
    try:
        importlib.import_module("skops.io")
    except ImportError:  # another skops, which wants more of this module
        for name in [name for name in sys.modules if name.startswith("skops.io")]:
            del sys.modules[name]


def _stand_in() -> ModuleType:
    module = ModuleType(SURVEY)
    facts = {
        "PRIMITIVES_TYPES": [int, float, str, bool],
        "PRIMITIVE_TYPE_NAMES": ["builtins.int", "builtins.float", "builtins.str", "builtins.bool"],
        "CONTAINER_TYPES": [list, set, map, tuple],
        "CONTAINER_TYPE_NAMES": ["builtins.list", "builtins.set", "builtins.map", "builtins.tuple"],
        "NUMPY_DTYPE_TYPE_NAMES": sorted({f"numpy.{kind.__name__}" for kind in set(np.sctypeDict.values())}),
        "NUMPY_RANDOM_BIT_GENERATOR_TYPE_NAMES": _bit_generators(),
        **{name: PutOff(name) for name in PUT_OFF},
    }
    for name, value in facts.items():
        setattr(module, name, value)
    return module


def _bit_generators() -> list[str]:
    base = np.random.BitGenerator
    found = {name: getattr(np.random, name) for name in dir(np.random)}
    return sorted(
        f"numpy.random.{name}"
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    )


class PutOff(list[str]):
    """One list of the survey, made when it is first read; empty while our own list decides."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def names(self) -> list[str]:
        """What skops would have found when it was imported."""
        return [] if _our_list_decides.get() else list(getattr(survey(), self._name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __len__(self) -> int:
        return len(self.names())

    def __add__(self, other: Any) -> list[Any]:
        return [*self.names(), *other]

    def __radd__(self, other: Any) -> list[Any]:
        return [*other, *self.names()]


_surveyed: list[ModuleType] = []


def survey() -> ModuleType:
    """The module as skops wrote it; the first call takes most of a second."""
    if not _surveyed:
        package = importlib.import_module("skops.io")
        spec = importlib.util.spec_from_file_location(SURVEY, f"{package.__path__[0]}/_trusted_types.py")
        assert spec is not None  # noqa: S101 - skops.io has just been imported, and it has this file
        assert spec.loader is not None  # noqa: S101
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _surveyed.append(module)
    return _surveyed[0]
