"""`__all__` tells the whole truth about what a public package offers."""

import importlib
import pkgutil
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src/mlinfer"
PACKAGES = ["mlinfer"] + [
    f"mlinfer.{name}"
    for name in ("destinations", "hosts", "lifecycle", "observers", "sources", "testing")
    if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()
]


@pytest.fixture(params=PACKAGES)
def package(request):
    return importlib.import_module(request.param)


def test_all_is_sorted_without_repeats(package):
    assert list(package.__all__) == sorted(set(package.__all__))


def test_every_name_in_all_can_be_imported(package):
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing


def test_no_private_name_is_offered(package):
    private = [name for name in package.__all__ if name.startswith("_") and name != "__version__"]
    assert not private


def test_every_public_name_is_in_all(package):
    submodules = {module.name for module in pkgutil.iter_modules(getattr(package, "__path__", []))}
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and name not in submodules
        and name != "annotations"
        and not isinstance(value, types.ModuleType)
    }
    assert public <= set(package.__all__)


def test_only_the_documented_modules_are_public():
    names = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    public = {name for name in names if not name.startswith("_")}
    assert public <= {"destinations", "durable", "hosts", "lifecycle", "observers", "sources", "testing"}
