"""The kit's own manners: reasons for what is left out, for what may fail, and an adapter for pytest."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlinfer import ConfigError
from mlinfer.destinations import MemoryDestination
from mlinfer.testing import _tracing, check_destination, check_host, check_source
from testing_kit import parts
from testing_kit.test_broken_parts import EXAMPLE, RECORDS, failures, source

REASON = {"order": "its answers are a ranking"}


def test_a_failure_that_is_expected_is_told_with_its_reason():
    checks = dict(check_host(parts.Sorts, EXAMPLE, expected_failures=REASON))
    assert checks["order"]() == "failed as expected: its answers are a ranking"


def test_an_expected_failure_does_not_earn_a_guarantee():
    assert failures(check_host(parts.Sorts, EXAMPLE, expected_failures=REASON)).keys() == {"guarantee"}


def test_an_expected_failure_that_passes_is_an_error():
    found = failures(check_host(parts.Doubler, EXAMPLE, expected_failures=REASON))
    assert found.keys() == {"order"}
    assert (
        "wanted the check 'order' to fail, as expected_failures says (its answers are a ranking)"
        in found["order"]
    )


@pytest.mark.parametrize("excuses", [{"ordre": "misspelt"}, {"order": ""}])
def test_an_expected_failure_needs_a_known_name_and_a_reason(excuses):
    with pytest.raises(ConfigError, match="wanted names of checks"):
        list(check_host(parts.Doubler, EXAMPLE, expected_failures=excuses))


def test_what_does_not_concern_a_part_says_why():
    checks = dict(source(parts.LinesSource))
    assert checks["redelivery"]() == "skipped: the source says resume='seek', so nothing is acknowledged"


def test_the_guarantee_is_in_the_words_of_explain():
    *_, (name, check) = source(parts.LinesSource)
    assert name == "guarantee"
    first, *lines = check().splitlines()
    assert first.startswith("LinesSource(path=")
    assert lines[0] == (
        "  into a transactional destination: exactly-once (main: records and progress are stored in one atomic step)"
    )


def test_the_guarantee_of_a_host_says_how_many_records_and_threads_it_has_seen():
    *_, records, threads = dict(check_host(Shared, EXAMPLE))["guarantee"]().splitlines()
    assert re.fullmatch(r"  asked for [\d,]+ records at once", records)  # fewer on a machine that is busy
    assert threads == "  asked by another thread at 3 lines of its own"


class Shared(parts.Doubler):
    """As good for threads as for one."""

    shared = True


def test_a_guarantee_without_a_kill_says_so():
    checks = check_destination(lambda folder: MemoryDestination(), lambda destination: destination.table())
    assert dict(checks)["guarantee"]().splitlines()[-1] == (
        "  but it was never killed in a process of its own: the destination does not pickle, so it dies with this one"
    )


def test_kills_reach_each_line_before_any_line_twice_and_what_is_called_too():
    places = [(file, line, commits) for commits in range(3) for file in ("own", "lent") for line in range(40)]
    few = _tracing.chosen(places, {"own"}, 40)
    assert [sum(file == name for file, _, _ in few) for name in ("own", "lent")] == [30, 10]
    assert {commits for _, _, commits in few} == {1}  # there is something to lose, and something to come
    many = _tracing.chosen(places, {"own"}, 100)
    assert {place[:2] for place in many} == {place[:2] for place in places}
    assert len(many) == 100
    assert _tracing.chosen(places, {"own"}, 1000) == places


def test_unless_told_otherwise_every_line_of_the_part_is_killed_at_and_some_that_it_calls():
    places = [(file, line, 1) for file, lines in (("own", 150), ("lent", 300)) for line in range(lines)]
    found = _tracing.chosen(places, {"own"}, None)
    assert [place for place in found if place[0] == "own"] == places[:150]
    assert sum(place[0] == "lent" for place in found) == _tracing.OTHER_KILLS
    assert _tracing.told(found, places, {"own"}) == (
        "killed at 150 of 150 lines of its own, and at 20 of 300 that these call"
    )


def test_records_that_prove_nothing_are_refused():
    with pytest.raises(AssertionError, match="at least 5 records"):
        next(check_source(None, RECORDS[:4]))
    with pytest.raises(AssertionError, match="that can be told apart"):
        next(check_source(None, RECORDS[:1] * 5))


def test_an_error_in_a_part_is_a_failure_with_its_cause():
    def broken(folder, records):
        raise OSError("the disk is on fire")

    checks = dict(check_source(broken, RECORDS))
    with pytest.raises(
        AssertionError, match="everything: wanted no error here, found OSError: the disk"
    ) as caught:
        checks["everything"]()
    assert isinstance(caught.value.__cause__, OSError)


def test_recipes_are_held_to_their_rules(tmp_path):
    def said(recipe):
        return dict(check_host(lambda: recipe, EXAMPLE))["recipe"]()

    with pytest.raises(AssertionError, match=r"wanted that Thawed.number cannot be set"):
        said(parts.Thawed())
    with pytest.raises(
        AssertionError, match="wanted that making a Curious looks at nothing outside, found open"
    ):
        said(parts.Curious(__file__))
    with pytest.raises(AssertionError, match="wanted a copy of Incomparable that is equal to it"):
        said(parts.Incomparable())


def test_sessions_are_held_to_their_rules():
    def closing(kind):
        return dict(check_host(kind, EXAMPLE))["closing"]()

    with pytest.raises(AssertionError, match=r"wanted that a session leaves nothing open, found .*parts\.py"):
        closing(parts.Leaks)
    with pytest.raises(AssertionError, match="wanted that an error inside a session comes out of it"):
        closing(parts.Swallows)
    for file in parts.LEAKED:
        file.close()


ADAPTED = """
import sys
sys.path[:0] = {path!r}
from testing_kit.parts import Sorts
from testing_kit.test_broken_parts import EXAMPLE
from mlinfer.testing import check_host
from mlinfer.testing.pytest import cases

@cases(check_host(Sorts, EXAMPLE))
def test_host(check):
    check()
"""


def test_the_adapter_makes_a_test_of_each_check(tmp_path):
    path = [str(Path(__file__).parents[1])]
    (tmp_path / "test_it.py").write_text(ADAPTED.format(path=path), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-rsfp",
        "--noconftest",
        "test_it.py",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    for line in (
        "PASSED test_it.py::test_host[split]",
        "FAILED test_it.py::test_host[order]",
        "the model has no memory",
        "FAILED test_it.py::test_host[guarantee]",
    ):
        assert line in done.stdout


def test_the_kit_needs_pytest_in_its_adapter_only():
    code = (
        "import sys, mlinfer.testing; assert 'pytest' not in sys.modules; assert '_pytest' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
