"""A function that has changed is noticed by its code; the same function is the same in another process."""

import subprocess
import sys
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import mlinfer
from mlinfer import Budget, ChangedError, InferencePipeline, RejectsError
from mlinfer._code import comparable, digest_of_code
from mlinfer.destinations import MemoryDestination
from mlinfer.sources import Mapped, MemorySource

FIRST = """
def outer(k=2, *, names=("a", "b")):
    def fn(records):
        'What it does.'
        try:
            return [one for one in records if one in {"x", "y", "z"}] + [k, names]
        except ValueError:
            return "no"
    return fn
fn = outer()
"""
CHANGES = {
    "a text": ('"no"', '"yes"'),
    "a member of a set": ('"z"', '"w"'),
    "what is closed over": ("k=2", "k=3"),
    "what is caught": ("ValueError", "TypeError"),
    "an operator": ("+ [k", "* [k"),
}
SAME = {
    "its documentation": ("What it does.", "What it does now."),
    "a comment": ("    def fn", "    # why\n    def fn"),
}


def made(text):
    found = {}
    exec(compile(text, "text", "exec"), found)
    return digest_of_code(found["fn"])


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_code_is_seen(change):
    assert made(FIRST.replace(*CHANGES[change])) != made(FIRST)


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_answer_is_no_change(change):
    assert made(FIRST.replace(*SAME[change])) == made(FIRST)


def test_the_digest_is_the_same_in_every_process():
    program = f"from mlinfer._code import digest_of_code\n{FIRST}\nprint(digest_of_code(fn))"
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert found.stdout.strip() == made(FIRST)


def test_lambdas_partials_and_objects_have_digests():
    class Adds:
        def __call__(self, records):
            return records

    class Takes:
        def __call__(self, records):
            return [records]

    ones = [
        lambda r: r["a"],
        lambda r: r["b"],
        partial(max, 1),
        partial(max, 2),
        Adds(),
        Takes(),
        len,
        Adds().__call__,
    ]
    assert len({digest_of_code(one) for one in ones}) == len(ones)
    assert digest_of_code(Adds()) == digest_of_code(Adds())
    assert not comparable("3.11 a", "3.12 b")


@mlinfer.host(inputs={"y": "double"}, outputs={"z": "double"}, takes="numpy", version="1")
def model(y):
    if (y > 100).any():
        raise ValueError("too large")
    return y


def pipeline(destination, factor, **more):
    def scaled(records):
        return records.append_column("y", pc.multiply(records["x"], factor))

    return InferencePipeline(
        Mapped(MemorySource({"x": [1.0, 2.0, 1000.0]}), scaled), model, destination, name="p", rejects=destination,
        budget=Budget(ratio=1), **more,
    )  # fmt: skip


def test_another_mapping_does_not_go_on_in_silence():
    destination = MemoryDestination()
    assert pipeline(destination, 2.0).run().delivered == 2
    assert pipeline(destination, 2.0).run().delivered == 0
    with pytest.raises(ChangedError, match=r"function was '3\.\d+ \w+', is '3\.\d+ \w+'; use on_change="):
        pipeline(destination, 3.0).run()
    assert pipeline(destination, 3.0, on_change="continue").run().delivered == 0
    assert pipeline(destination, 3.0, on_change="restart").run().delivered == 2
    assert destination.table()["z"].to_pylist() == [3.0, 6.0]


def test_a_replay_knows_the_function_that_made_its_records():
    destination = MemoryDestination()
    pipeline(destination, 2.0).run()
    # not ChangedError: it is asked again, and refused again
    with pytest.raises(RejectsError, match="model_error"):
        pipeline(destination, 2.0).replay()
    with pytest.raises(ChangedError, match="function was"):
        pipeline(destination, 3.0).replay()
    assert pipeline(destination, 2.0).run().delivered == 0


def test_progress_of_before_functions_were_noted_goes_on():
    destination = MemoryDestination()
    source = MemorySource({"x": [1.0], "y": [1.0]})
    assert InferencePipeline(source, model, destination, name="p").run().delivered == 1
    same = Mapped(source, lambda records: pa.RecordBatch.from_arrays(records.columns, names=["x", "y"]))
    assert InferencePipeline(same, model, destination, name="p").run().delivered == 0
