"""Parts are listed without being imported, loaded one at a time, and never confused with one another."""

import sys
from importlib.metadata import distribution
from textwrap import dedent

import pytest

from mlinfer import ConfigError, PluginNotFound
from mlinfer._registry import GROUPS, load, plugins


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package on the path as an installer would: modules, and metadata with entry points."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def put(name, entries, modules=(), version="1.2"):
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(dedent(entries))
        for file, text in dict(modules).items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(dedent(text))
        return tmp_path

    yield put
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_listing_imports_nothing(install):
    folder = install(
        "stranger-pkg",
        "[mlinfer.sources]\nexplosive = stranger_parts.inner:Source\n",
        {"stranger_parts/__init__.py": "raise RuntimeError('imported')", "stranger_parts/inner.py": ""},
    )
    [found] = [plugin for plugin in plugins("source") if plugin.name == "explosive"]
    assert (found.distribution, found.version) == ("stranger-pkg", "1.2")
    assert found.value == "stranger_parts.inner:Source"
    assert found.file == str(folder / "stranger_parts/inner.py")
    assert "stranger_parts" not in sys.modules


def test_only_the_named_part_is_imported(install):
    install(
        "two-parts",
        "[mlinfer.sources]\nquiet = quiet_part:Source\nexplosive = loud_part:Source\n",
        {"quiet_part.py": "class Source: pass", "loud_part.py": "raise RuntimeError('imported')"},
    )
    assert load("source", "quiet").__name__ == "Source"
    assert "loud_part" not in sys.modules


def test_a_part_that_cannot_be_imported_is_named_with_its_package_and_the_cause(install):
    install(
        "broken-pkg",
        "[mlinfer.hosts]\nbroken = broken_part:Host\n",
        {"broken_part.py": "import nowhere_at_all"},
    )
    with pytest.raises(
        ConfigError, match=r"host 'broken' of broken-pkg 1\.2.*ModuleNotFoundError.*nowhere_at_all"
    ) as found:
        load("host", "broken")
    assert isinstance(found.value.__cause__, ModuleNotFoundError)


def test_a_part_that_exits_when_it_is_imported_does_not_end_the_program(install):
    install(
        "quitter", "[mlinfer.hosts]\nquits = quits_part:Host\n", {"quits_part.py": "import sys; sys.exit(0)"}
    )
    with pytest.raises(
        ConfigError, match=r"host 'quits' of quitter 1\.2: importing quits_part:Host failed: S"
    ):
        load("host", "quits")


def test_a_package_whose_metadata_make_no_sense_hides_no_other(install):
    install("nonsense", "[mlinfer.sources]\nodd = not a value\n")
    found = {plugin.name: plugin.file for plugin in plugins("source")}
    assert found["odd"] is None
    assert found["memory"].endswith("__init__.py")
    with pytest.raises(ConfigError, match=r"source 'odd' of nonsense 1\.2: importing not a value failed"):
        load("source", "odd")


def test_a_missing_attribute_is_told_like_a_missing_module(install):
    install("hollow-pkg", "[mlinfer.hosts]\nhollow = hollow_part:Host\n", {"hollow_part.py": ""})
    with pytest.raises(ConfigError, match=r"'hollow' of hollow-pkg 1\.2.*AttributeError"):
        load("host", "hollow")


def test_an_unknown_name_lists_what_is_installed():
    with pytest.raises(PluginNotFound, match=r"no source is called 'kafka'; installed: .*memory.*parquet"):
        load("source", "kafka")


def test_two_packages_that_claim_one_name_are_both_named(install):
    install("first-pkg", "[mlinfer.destinations]\nqueue = first_part:D\n", {"first_part.py": "class D: pass"})
    install(
        "second-pkg", "[mlinfer.destinations]\nqueue = second_part:D\n", {"second_part.py": "class D: pass"}
    )
    with pytest.raises(ConfigError, match=r"first-pkg 1\.2.*second-pkg 1\.2"):
        load("destination", "queue")
    assert "first_part" not in sys.modules
    assert [plugin.distribution for plugin in plugins("destination") if plugin.name == "queue"] == [
        "first-pkg",
        "second-pkg",
    ]


def test_nobody_can_take_the_name_of_a_built_in_part(install):
    install("squatter", "[mlinfer.sources]\nmemory = squat:Source\n", {"squat.py": "class Source: pass"})
    with pytest.raises(ConfigError, match=r"mlinfer .*squatter 1\.2"):
        load("source", "memory")


def test_the_built_in_parts_come_through_the_same_door():
    import mlinfer.sources

    assert load("source", "memory") is mlinfer.sources.MemorySource
    version = distribution("mlinfer").version
    for role in GROUPS:
        own = [plugin for plugin in plugins(role) if plugin.distribution == "mlinfer"]
        assert own, role
        assert {plugin.version for plugin in own} == {version}
        assert all(plugin.file and plugin.file.endswith("__init__.py") for plugin in own), own


@pytest.mark.parametrize("value", ["no_such_package.part:X", "sys:X", "json.no_such:X"])
def test_a_module_that_is_not_there_has_no_file(install, value):
    install("ghost", f"[mlinfer.engines]\nghost = {value}\n")
    [found] = [plugin for plugin in plugins("engine") if plugin.name == "ghost"]
    assert found.file in (None, "built-in")


def test_who_runs_pipelines_says_whose_parts_they_may_name(install, monkeypatch):
    install(
        "Stranger_Pkg",
        "[mlinfer.sources]\nlisted = listed_part:Source\n",
        {"listed_part.py": "class Source: pass"},
    )
    for said in ("", "other-pkg", "stranger-pkg==1.1", "stranger-pkg==1.20", "other-pkg==1.2"):
        monkeypatch.setenv("MLINFER_PLUGINS", said)
        with pytest.raises(
            ConfigError,
            match=r"source 'listed': wanted a package that MLINFER_PLUGINS allows.*Stranger_Pkg==1\.2",
        ):
            load("source", "listed")
        assert "listed_part" not in sys.modules
        assert load("source", "memory").__name__ == "MemorySource"
    for said in ("stranger-pkg==1.2", "other-pkg stranger.pkg"):
        monkeypatch.setenv("MLINFER_PLUGINS", said)
        assert load("source", "listed").__name__ == "Source"


def test_a_list_of_packages_that_cannot_be_read_allows_none(install, monkeypatch):
    install(
        "some-pkg", "[mlinfer.sources]\nsome = some_part:Source\n", {"some_part.py": "class Source: pass"}
    )
    for said in ("some-pkg>=1", "some-pkg, other", "*"):
        monkeypatch.setenv("MLINFER_PLUGINS", said)
        with pytest.raises(ConfigError, match="wanted packages with spaces between them"):
            load("source", "some")
    assert "some_part" not in sys.modules
