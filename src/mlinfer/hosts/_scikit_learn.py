"""scikit-learn without pandas, which it imports, where it is installed, and does not use until it is given a data frame."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

FIXES = "sklearn.utils.fixes"
"""The only module of scikit-learn that imports pandas when it is imported itself; it calls it `pd`."""
_one_at_a_time = threading.RLock()


def scikit_learn() -> ModuleType:
    """The module `sklearn`."""
    with _one_at_a_time:
        if "sklearn" in sys.modules or "pandas" in sys.modules or find_spec("pandas") is None:
            return import_module("sklearn")
        finder = _Pandas()
        sys.meta_path.insert(0, finder)
        try:
            module = import_module("sklearn")
        except BaseException:
            sys.meta_path.remove(finder)
            raise
        finder.without = None
        fixes: Any = sys.modules.get(FIXES)
        if getattr(fixes, "pd", finder) is None:
            fixes.pd = _Later("pandas")
        return module


class _Pandas(MetaPathFinder):
    """Says to one thread that pandas is not installed; for all others, and later for all, lets nobody see half of it."""

    def __init__(self) -> None:
        self.without: int | None = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "pandas":
            return None
        if threading.get_ident() == self.without:
            msg = f"No module named {fullname!r}"
            raise ModuleNotFoundError(msg, name=fullname)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = _Loader(spec.loader)
            spec.loader = loader
        return spec


class _Loader:
    """Loads a module as another loader does, for which other threads wait."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._loader.create_module(spec) or _Arriving(spec.name)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        module.__class__ = ModuleType


class _Arriving(ModuleType):
    """A module that is being imported: scikit-learn looks for `DataFrame` in it as soon as it is known by name."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):  # those are asked for before anybody could wait
            import_module(self.__name__)  # waits, on any other thread than the one that imports it
            if name in self.__dict__:
                return self.__dict__[name]
        msg = f"module {self.__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)


class _Later(ModuleType):
    """Stands for a module until something of it is wanted."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)
