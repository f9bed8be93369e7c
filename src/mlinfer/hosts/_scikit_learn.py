"""scikit-learn without pandas, which it imports, where it is installed, and does not use until it is given a data frame."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

FIXES = "sklearn.utils.fixes"
"""The only module of scikit-learn that imports pandas when it is imported itself; it calls it `pd`."""


def scikit_learn() -> ModuleType:
    """The module `sklearn`."""
    if "sklearn" in sys.modules or "pandas" in sys.modules:
        return import_module("sklearn")
    absent = _Absent("pandas")
    sys.meta_path.insert(0, absent)
    try:
        module = import_module("sklearn")
    finally:
        sys.meta_path.remove(absent)
    fixes: Any = sys.modules.get(FIXES)
    if getattr(fixes, "pd", absent) is None and find_spec("pandas") is not None:
        fixes.pd = _Later("pandas")
    return module


class _Absent(MetaPathFinder):
    """Says of one module that it is not installed; to this thread alone, others may need it meanwhile."""

    def __init__(self, name: str) -> None:
        self._name, self._thread = name, threading.get_ident()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._name and threading.get_ident() == self._thread:
            msg = f"No module named {fullname!r}"
            raise ModuleNotFoundError(msg, name=fullname)
        return None


class _Later(ModuleType):
    """Stands for a module until something of it is wanted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)
