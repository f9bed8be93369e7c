"""Another function is another version, also where its text cannot be looked up; stored progress rests on that."""

import functools
import subprocess
import sys

import pytest

from mlinfer.hosts import FunctionHost


def version(function):
    with FunctionHost(function, {"x": "double"}, {"y": "double"}, takes="numpy").open() as model:
        return model.signature.version


def made(text):
    """As in an interactive session: no file holds the text."""
    names = {}
    exec(text, names)
    return names["f"]


class Once:
    def __call__(self, x):
        return x


class Twice:
    def __call__(self, x):
        return 2 * x


class Heir(Once):
    pass


class OtherHeir(Twice):
    pass


OtherHeir.__qualname__ = OtherHeir.__name__ = "Heir"
Twice.__qualname__ = Twice.__name__ = "Once"  # as after an edit


def times(factor, x, by=None):
    return factor * x


def divided(factor, x):
    return x / factor


PAIRS = {
    "code": (made("def f(x): return x"), made("def f(x): return x * x")),
    "a constant": (made("def f(x): return 2 * x"), made("def f(x): return 3 * x")),
    "a name": (made("def f(x): return abs(x)"), made("def f(x): return int(x)")),
    "an inner function": (
        made("def f(x): return list(map(lambda one: 2 * one, x))"),
        made("def f(x): return list(map(lambda one: 3 * one, x))"),
    ),
    "an object": (Once(), Twice()),
    "what an object inherits": (Heir(), OtherHeir()),
    "an argument": (functools.partial(times, 2), functools.partial(times, 3)),
    "an argument by name": (functools.partial(times, 2, by="a"), functools.partial(times, 2, by="b")),
    "what is called": (functools.partial(times, 2), functools.partial(divided, 2)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_another_function_is_another_version(pair):
    first, second = PAIRS[pair]
    assert version(first) != version(second)


@pytest.mark.parametrize("place", [0, 1])
def test_the_same_function_is_the_same_version_in_every_process(place):
    program = f"""
import functools, sys
sys.path.insert(0, {str(sys.path[0])!r})
from test_function_version import PAIRS, version
print([version(pair[{place}]) for pair in PAIRS.values()])
"""
    here = [version(pair[place]) for pair in PAIRS.values()]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(here)


def test_an_argument_that_cannot_be_written_down_changes_nothing():
    """Its address would be another one in each process."""
    assert version(functools.partial(times, object())) == version(functools.partial(times, object()))
