"""Arrays that go between Arrow, numpy and Python without a conversion by Arrow are what Arrow would have made."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from hypothesis.extra import numpy as some_numpy

from mlinfer._arrays import as_column, from_numpy, from_values, to_numpy
from mlinfer._choosing import chosen_rows

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
    *(
        some.lists(some.none() | one)
        for one in (some.integers(-(2**65), 2**65), some.floats(), some.booleans())
    ),
    some.lists(some.none() | TEXTS),
    some.lists(some.none() | some.binary()),
    some.lists(some.binary()),
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
    except (
        UnicodeError
    ):  # half of a character: Arrow has one for it in a list, and another for it in an array
        return UnicodeError
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        return type(error)


def same(one, other):
    if not isinstance(one, pa.Array):
        return one is other or {one, other} == {ValueError, pa.ArrowInvalid}  # of which the second is one
    one.validate(full=True)
    return one.type == other.type and repr(one.to_pylist()) == repr(other.to_pylist())


@given(PLAIN)
def test_a_column_of_python_values_is_what_arrow_infers(values):
    assert same(made(from_values, values), made(pa.array, values))


@given(NUMBERS.filter(lambda values: "\0" not in "".join(map(str, values))), some.sampled_from([1, 2, -1]))
@example(np.array(["\ud800"]), 1)
def test_a_column_of_a_numpy_array_is_what_arrow_makes_of_it(values, step):
    assert same(made(from_numpy, values[::step]), made(pa.array, values[::step]))


def whole(values):
    """Without half characters, of which Arrow makes no texts."""
    if values.dtype.kind != "U" or not values.nbytes:
        return True
    codes = np.ascontiguousarray(values).view(np.uint32)
    return not ((codes >= 0xD800) & (codes < 0xE000)).any()


@given(
    NUMBERS.filter(lambda values: values.dtype.isnative and whole(values)),
    some.integers(0, 9),
    some.booleans(),
)
def test_a_numpy_array_of_a_column_is_what_arrow_makes_of_it(values, start, gap):
    column = pa.array(values, mask=np.arange(len(values)) == 2) if gap else pa.array(values)
    column = column.slice(start)
    found, wanted = to_numpy(column), column.to_numpy(zero_copy_only=False)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@given(
    some.one_of(some.lists(some.none() | some.text()), some.lists(some.none() | some.binary())),
    some.integers(0, 3),
)
def test_a_numpy_array_of_texts_is_what_arrow_makes_of_it(values, start):
    column = pa.array(values, pa.binary() if bytes in set(map(type, values)) else pa.string()).slice(start)
    found, wanted = to_numpy(column), column.to_numpy(zero_copy_only=False)
    assert (found.dtype, found.shape, found.tolist()) == (wanted.dtype, wanted.shape, wanted.tolist())


@given(
    some.lists(some.tuples(some.booleans(), some.none() | some.integers(0, 9)), max_size=40),
    some.integers(0, 9),
)
def test_the_good_records_are_those_that_arrow_would_filter(rows, start):
    good, numbers = [one for one, _ in rows[start:]], [number for _, number in rows]
    texts = pa.array(None if number is None else str(number) for number in numbers)
    columns = [pa.array(numbers, kind) for kind in (pa.int64(), pa.uint8(), pa.float32(), pa.float64())]
    columns += [
        texts.cast(pa.string()),
        texts.cast(pa.string()).dictionary_encode(),
        pa.array([[one] for one in numbers]),
    ]
    records = pa.record_batch(columns, names=list("abcdefg")).slice(start)
    found = chosen_rows(records, np.array(good, bool))
    found.validate(full=True)
    assert found.equals(records.filter(pa.array(good, pa.bool_())))


@given(PLAIN, some.sampled_from([pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.int16(), pa.binary()]))
@example([0.5], pa.int64())
def test_a_column_of_python_answers_is_what_arrow_reads_as_the_fields_type(values, kind):
    found = made(lambda values: as_column(values, pa.field("a", kind)), values)
    if pa.types.is_integer(kind) and any(type(value) is float and value % 1 for value in values):
        assert found is ValueError  # where Arrow would make 0 of 0.5
    else:
        assert same(found, made(lambda values: pa.array(values, kind), values))


TEXTS_JOB = """
import sys, httpx, numpy as np, pyarrow as pa, tritonclient.grpc as triton
from mlinfer import InferencePipeline
from mlinfer.sources import IterableSource
from mlinfer.hosts import FunctionHost, SklearnHost
from mlinfer.destinations import MemoryDestination

def nothing():
    yield from ()

def echo(records):
    return {f"{name} too": records.column(name) for name in records.schema.names}

def listed(**columns):
    return {f"{name} too": column if name == "s" else column.tolist() for name, column in columns.items()}

ROWS = {"carrier": ["UA", None], "delay": [1.5, 90.0], "late": [True, False], "n": [1, 2], "s": [3, 4]}
KINDS = {"carrier": "BYTES", "delay": "FP64", "late": "BOOL", "n": "INT64", "s": "INT16"}
TYPES = {"carrier": pa.string(), "delay": pa.float64(), "late": pa.bool_(), "n": pa.int64(), "s": pa.int16()}
BOTH = pa.schema(TYPES), pa.schema({f"{name} too": kind for name, kind in TYPES.items()})
for host in (SklearnHost(sys.argv[1]), FunctionHost(echo, *BOTH), FunctionHost(listed, *BOTH, takes="numpy")):
    with host.open() as model:
        names, name = model.signature.inputs.names, model.signature.model_id
    with InferencePipeline(IterableSource(nothing), host, MemoryDestination()).serving(grpc_bind="127.0.0.1:0") as server:
        rows = [dict(zip(names, values)) for values in zip(*(ROWS[one] for one in names))]
        tensors = {"inputs": [{"name": one, "shape": [2], "datatype": KINDS[one], "data": ROWS[one]} for one in names]}
        for path, body in [
            ("/predict", rows), ("/predict", rows[:1]), (f"/v2/models/{name}/infer", tensors),
            (f"/v2/models/{name}/infer", {**tensors, "parameters": {"binary_data_output": True}}),
        ]:
            assert httpx.post(server.url + path, json=body).status_code == 200, path
        tensors = []
        for one in names:
            tensors.append(triton.InferInput(one, [2], KINDS[one]))
            values = ["UA", ""] if one == "carrier" else ROWS[one]
            dtype = {"BYTES": object, "INT16": "i2"}.get(KINDS[one])
            tensors[-1].set_data_from_numpy(np.array(values, dtype))
        with triton.InferenceServerClient(server.grpc_address) as client:
            client.infer(name, tensors)
    print("pandas" in sys.modules)
"""


def test_texts_and_booleans_are_served_without_importing_pandas(tmp_path):
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    import mlinfer

    records = pd.DataFrame({"carrier": ["UA", "AA", "DL"] * 20, "delay": np.arange(60.0), "n": np.arange(60)})
    encoded = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough"
    )
    estimator = make_pipeline(encoded, LogisticRegression(max_iter=500))
    estimator.fit(records, np.where(records.delay > 30, "late", "on time"))
    mlinfer.save(estimator, tmp_path / "late.mlinfer", example=records)
    done = subprocess.run(
        [sys.executable, "-c", TEXTS_JOB, tmp_path / "late.mlinfer"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["False"] * 3, done.stderr


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
