"""Lists of the length 0, over which Arrow ends the whole process: a matrix without columns is an error, in words."""

import subprocess
import sys

import pytest

BEGIN = """
import numpy as np, pyarrow as pa, mlinfer
from mlinfer import Budget, InferencePipeline
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.sources import MemorySource
first = FunctionHost(lambda x: x[:, 0], {"x": pa.list_(pa.float64(), 2)}, {"y": "double"}, takes="numpy", version="1")
made = InferencePipeline(MemorySource(np.zeros((3, 2))), first, MemoryDestination(), name="p")
nothing = np.zeros((3, 0))
"""
WAYS = {
    "in hand": ("made.infer(nothing)", "found one of the shape (3, 0)"),
    "as a column": ("made.infer({'x': np.zeros((3, 2, 0))})", "found one of the shape (3, 2, 0)"),
    "a source": (
        "InferencePipeline(MemorySource(nothing), first, MemoryDestination(), name='p').run()",
        "found one of the shape (3, 0)",
    ),
    "an example": (
        """from sklearn.dummy import DummyRegressor
SklearnHost(DummyRegressor().fit(nothing, [1, 2, 3]), example=nothing).open().__enter__()""",
        "found one of the shape (3, 0)",
    ),
    "an answer": (
        """from sklearn.compose import ColumnTransformer
some = np.ones((3, 2))
SklearnHost(ColumnTransformer([]).fit(some), example=some, method='transform').open().__enter__()""",
        "wanted a column or more, found none",
    ),
    "a signature": (
        "FunctionHost(lambda x: x, {'x': pa.list_(pa.float64(), 0)}, {'y': 'double'}, version='1').open().__enter__()",
        "wanted lists of a length above 0",
    ),
}


def told(code):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in {0, 1}, (done.returncode, done.stderr)  # -8: Arrow divided by zero
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_matrix_without_columns_is_an_error_and_not_the_end_of_the_process(way):
    code, words = WAYS[way]
    said = told(code)
    assert "ConfigError" in said
    assert words in said


def test_rejects_with_a_list_of_the_length_0_beside_them_are_replayed():
    said = told("""
empty = pa.array([[], None, None, []], pa.list_(pa.int64(), 0))
source, answers, rejects = MemorySource(pa.table({"n": [1.0, -1.0, 2.0, -2.0], "e": empty})), MemoryDestination(), MemoryDestination()
mended = []
def positive(n):
    if not mended and (n < 0).any():
        raise ValueError("negative")
    return n
host = FunctionHost(positive, {"n": "double"}, {"y": "double"}, takes="numpy", version="1")
made = InferencePipeline(source, host, answers, name="p", keep=["e"], rejects=rejects, budget=Budget(ratio=1))
made.run()
mended.append(True)
made.replay()
print(answers.table().to_pydict())
""")
    assert "{'e': [[], None, None, []], 'y': [1.0, 2.0, -1.0, -2.0]}" in said
