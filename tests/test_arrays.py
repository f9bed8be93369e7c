"""Arrays that go between Arrow, numpy and Python without a conversion by Arrow are what Arrow would have made."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra import numpy as some_numpy

from mlinfer._arrays import from_numpy, from_values, to_numpy

TEXTS = some.text(some.characters(exclude_categories=()))  # halves of characters included
PLAIN = some.one_of(
    some.lists(some.integers(-(2**65), 2**65)),
    some.lists(some.floats()),
    some.lists(some.booleans()),
    some.lists(TEXTS),
    some.lists(some.lists(some.floats())),
    some.lists(some.lists(TEXTS)),
    some.lists(some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), TEXTS)),
    some.lists(some.lists(some.one_of(some.none(), some.integers(), some.floats()))),
)
NUMBERS = some_numpy.arrays(
    some.one_of(
        some_numpy.boolean_dtypes(),
        some_numpy.integer_dtypes(),
        some_numpy.unsigned_integer_dtypes(),
        some_numpy.floating_dtypes(sizes=(16, 32, 64)),
        some_numpy.unicode_string_dtypes(),
    ),
    some.integers(0, 20),
)


def made(make, values):
    """What came of it: an array, or the kind of complaint."""
    try:
        return make(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        return type(error)


def same(one, other):
    if not isinstance(one, pa.Array):
        return one is other
    one.validate(full=True)
    return one.type == other.type and repr(one.to_pylist()) == repr(other.to_pylist())


@given(PLAIN)
def test_a_column_of_python_values_is_what_arrow_infers(values):
    assert same(made(from_values, values), made(pa.array, values))


@given(NUMBERS, some.sampled_from([1, 2, -1]))
def test_a_column_of_a_numpy_array_is_what_arrow_makes_of_it(values, step):
    assert same(made(from_numpy, values[::step]), made(pa.array, values[::step]))


@given(NUMBERS.filter(lambda values: values.dtype.isnative), some.integers(0, 9), some.booleans())
def test_a_numpy_array_of_a_column_is_what_arrow_makes_of_it(values, start, gap):
    column = pa.array(values, mask=np.arange(len(values)) == 2) if gap else pa.array(values)
    column = column.slice(start)
    found, wanted = to_numpy(column), column.to_numpy(zero_copy_only=False)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


JOB = """
import sys, httpx
from mlinfer import InferencePipeline
from mlinfer.sources import ParquetSource
from mlinfer.hosts import SklearnHost
from mlinfer.destinations import MemoryDestination, ParquetDestination
package, records, out = sys.argv[1:]
source, host = ParquetSource(records), SklearnHost(package)
print(InferencePipeline(source, host, ParquetDestination(out), name="scores").run().delivered)
with InferencePipeline(source, host, MemoryDestination()).serving("127.0.0.1:0") as server:
    print(httpx.post(server.url + "/predict", json={"x": [5.1, 3.5, 1.4, 0.2]}).json())
print("pandas" in sys.modules)
"""


def test_a_saved_model_runs_and_serves_without_importing_pandas(iris_package, tmp_path):
    import pyarrow.parquet as pq

    rows = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]]
    pq.write_table(pa.table({"x": pa.array(rows, pa.list_(pa.float64(), 4))}), tmp_path / "rows.parquet")
    done = subprocess.run(
        [sys.executable, "-c", JOB, iris_package, tmp_path / "rows.parquet", tmp_path / "out"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2", "{'y_pred': 0}", "False"]


@pytest.fixture
def iris_package(tmp_path):
    assert find_spec("pandas"), "where it is not installed, it is not imported either"
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    import mlinfer

    inputs, labels = load_iris(return_X_y=True)
    mlinfer.save(
        LogisticRegression(max_iter=500).fit(inputs, labels), tmp_path / "iris.mlinfer", example=inputs
    )
    return tmp_path / "iris.mlinfer"
