"""What cannot work is a ConfigError with advice, before the first record."""

import math
from functools import partial
from pathlib import Path

import pytest

import mlinfer
from mlinfer import ConfigError, InferencePipeline
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    SqlDestination,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, MemorySource, SqlSource


def half(n):
    return n / 2


def pipeline(function=half, *, inputs=None, takes="numpy", **more):
    host = FunctionHost(function, inputs or {"n": "double"}, {"half": "double"}, takes=takes, version="1")
    return InferencePipeline(MemorySource({"n": [1.0]}), host, MemoryDestination(), name="p", **more)


@pytest.mark.parametrize(
    ("function", "takes", "said"),
    [
        (
            lambda m: m,
            "numpy",
            r"takes the arguments n, as its inputs are called, found <lambda>\(m\): missing",
        ),
        (lambda n, m: n, "numpy", r"found <lambda>\(n, m\): missing a required argument: 'm'"),
        (
            lambda a, b: a,
            "arrow",
            r"takes one argument, a pyarrow.RecordBatch \(takes='numpy' gives an array",
        ),
        (lambda: 1, "pandas", "takes one argument, a data frame, found"),
        (3, "numpy", "wanted a function, found int 3"),
    ],
)
def test_a_function_that_cannot_be_called_with_its_inputs_is_found_by_check(function, takes, said):
    with pytest.raises(ConfigError, match=said):
        pipeline(function, takes=takes).check()


@pytest.mark.parametrize("function", [half, lambda **n: n["n"], lambda n, more=1: n, lambda n, *, m=2: n])
def test_a_function_that_can_be_called_is_taken(function):
    assert pipeline(function).run().delivered == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: SqlDestination(Path("a.db"), "t"),
            "url: wanted a text such as 'sqlite:///scores.db', found",
        ),
        (lambda: SqlDestination("sqlite:///a.db", None), "table: wanted a name of at most 63 .*, found None"),
        (
            lambda: SqlDestination("sqlite:///a.db", "t", key=["a", "b"]),
            r"key: wanted the name of one column",
        ),
        (
            lambda: SqlSource(Path("a.db"), "SELECT 1"),
            "url: wanted a text, found PosixPath.* is 'sqlite:///'",
        ),
        (lambda: SqlSource("sqlite:///a.db", None), "query: wanted a text, found None"),
        (lambda: CsvSource("a.csv", id_column=["a"]), "id_column: wanted the name of one column, found"),
    ],
)
def test_what_should_be_a_text_is_asked_for_when_a_part_is_made(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_function_in_c_is_asked_as_it_is():
    assert pipeline(math.fsum, inputs={"n": "double"}, takes="arrow").check()


@pytest.mark.parametrize("kind", ["dubl", float, None])
def test_a_type_that_arrow_does_not_know_is_named(kind):
    with pytest.raises(ConfigError, match=r"inputs: wanted an Arrow type for 'n', .*double.*, found"):
        pipeline(inputs={"n": kind}).check()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"engine": "local"}, "engine: wanted an engine, found 'local'; leave it out"),
        ({"workers": 0}, "workers: wanted a count of 1 to 1,024"),
        ({"workers": "4"}, "workers: wanted a number of threads, or Workers"),
        ({"observers": ["progress"]}, r"observers: wanted objects, such as ProgressBar\(\).*'progress'"),
        ({"observers": "progress"}, r"observers: wanted objects, such as ProgressBar\(\).*'progress'"),
    ],
)
def test_names_and_numbers_that_cannot_be_meant_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        pipeline(**wrong)


def test_an_end_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="until: wanted 'end' or 'idle', found 'never'"):
        pipeline().run(until="never")


def test_a_host_without_fields_says_how_it_is_written():
    with pytest.raises(ConfigError, match=r"@mlinfer.host\("):
        mlinfer.host(half)
    with pytest.raises(ConfigError, match=r"@mlinfer.host\("):
        mlinfer.host(takes="numpy")


@pytest.mark.parametrize(
    "make",
    [
        partial(CsvDestination, "out.csv"),
        partial(JsonLinesDestination, "out.jsonl"),
        partial(ParquetDestination, "out"),
        partial(SqlDestination, "sqlite:///out.db", "scores"),
    ],
)
def test_a_misspelt_if_exists_is_refused_when_it_is_written(make):
    with pytest.raises(
        ConfigError, match="if_exists: wanted 'fail', 'append' or 'replace', found 'overwrite'"
    ):
        make(if_exists="overwrite")
