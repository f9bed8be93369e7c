"""Failpoints do nothing unless armed, only known places and actions can be armed, and only on purpose."""

import os
import signal
import subprocess
import sys

import pytest

from mlinfer import ComponentError, ConfigError, TransientError, failpoint
from mlinfer._failpoints import arm


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    arm("")


def test_nothing_happens_unless_armed():
    failpoint("dest.commit.after")
    arm("dest.commit.after=raise")
    failpoint("dest.commit.before")
    with pytest.raises(ComponentError):
        failpoint("dest.commit.after")


def test_the_nth_hit_is_the_one_that_fails():
    arm("source.open=raise(transient)@3; host.infer.before=raise(value)")
    failpoint("source.open")
    failpoint("source.open")
    with pytest.raises(TransientError):
        failpoint("source.open")
    failpoint("source.open")
    with pytest.raises(ValueError, match="failpoint"):
        failpoint("host.infer.before")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere=kill", "wanted NAME=ACTION(ARGUMENT)@WHEN with a known name, found 'nowhere=kill'"),
        ("source.open=eval(x)", "found 'source.open=eval(x)'"),
        ("source.open", "found 'source.open'"),
        ("source.open=partial(many)", "found 'source.open=partial(many)'"),
        ("source.open=sleep(0)@p.", "wanted a number in brackets and behind @p"),
        ("source.open=raise(nothing)", "wanted one of the errors component, eio, enospc"),
    ],
)
def test_unknown_places_and_actions_are_refused(spec, message):
    with pytest.raises(ConfigError) as caught:
        arm(spec)
    assert message in str(caught.value)


def run(spec, **environment):
    code = "from mlinfer import failpoint; failpoint('source.open'); failpoint('source.open'); print('alive')"
    environment = {**os.environ, "MLINFER_FAILPOINTS": spec, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_the_environment_arms_them_in_tests_only():
    assert run("source.open=kill@2", MLINFER_TEST="0").stdout == "alive\n"
    assert run("source.open=kill@2", MLINFER_TEST="1").returncode == -9
    assert run("source.open=exit(7)@2", MLINFER_TEST="1").returncode == 7


def test_a_process_stops_where_it_is_told_to_and_goes_on_when_it_is_woken():
    code = "from mlinfer import failpoint; failpoint('source.open'); print('awake')"
    environment = {**os.environ, "MLINFER_FAILPOINTS": "source.open=stop", "MLINFER_TEST": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    child.send_signal(signal.SIGCONT)
    assert child.communicate()[0] == "awake\n"


def written_by(spec, tmp_path):
    code = f"from pathlib import Path; from mlinfer import durable; durable.replace(Path({str(tmp_path / 'f')!r}), b'x' * 100)"
    environment = {**os.environ, "MLINFER_FAILPOINTS": spec, "MLINFER_TEST": "1"}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    return child, {path.name[:2]: path.stat().st_size for path in tmp_path.iterdir()}


def test_a_process_can_die_in_the_middle_of_a_write(tmp_path):
    child, sizes = written_by("progress.write.tmp=partial(30)", tmp_path)
    assert (child.returncode, sizes) == (-9, {".f": 30})


def test_a_disk_can_be_full_after_some_bytes(tmp_path):
    child, sizes = written_by("progress.write.tmp=enospc(30)", tmp_path)
    assert "No space left on device" in child.stderr
    assert (child.returncode, sizes) == (1, {})
