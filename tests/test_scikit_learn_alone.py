"""A saved model is loaded and asked without pandas, which scikit-learn would bring along; who wants pandas has it."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlinfer

ASKED = """
import sys
from mlinfer import InferencePipeline
from mlinfer.hosts import SklearnHost
from mlinfer.destinations import MemoryDestination
from mlinfer.sources import MemorySource
import numpy as np
host = SklearnHost("model.mlinfer", compile="never")
print(InferencePipeline(MemorySource(np.zeros((3, 2))), host, MemoryDestination(), name="p").infer(np.array([[9.0, 9.0], [-9.0, -9.0]]))["y_pred"].to_pylist())
print("pandas" in sys.modules, "sklearn" in sys.modules)
"""
FIXES = """
import sklearn.utils.fixes as fixes
print("pandas" in sys.modules)
import pandas
print(fixes.pd.DataFrame is pandas.DataFrame, sys.modules["pandas"] is pandas)
"""
FRAME = """
import pandas
frame = pandas.DataFrame({"a": [1.0, 2.0, None], "b": ["x", "y", "x"]})
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder
print(make_column_transformer((SimpleImputer(), ["a"]), (OneHotEncoder(sparse_output=False), ["b"])).fit_transform(frame).tolist())
"""
MEANWHILE = """
import sys, threading
from mlinfer.hosts._scikit_learn import scikit_learn
begin, found = threading.Barrier(2), []
def other():
    begin.wait()
    import pandas
    found.append(pandas.DataFrame)
thread = threading.Thread(target=other)
thread.start()
begin.wait()
scikit_learn()
thread.join()
import pandas
print(found == [pandas.DataFrame])
"""
LATER = """
import sys, threading
import numpy as np, pyarrow as pa
from mlinfer.hosts import SklearnHost
begun, ended, errors = threading.Event(), threading.Event(), []
with SklearnHost("model.mlinfer", compile="never").open() as model:
    numbers = pa.Array.from_buffers(pa.float64(), 2, [None, pa.py_buffer(np.array([9.0, 9.0]))])  # pa.array imports pandas
    records = pa.record_batch([pa.FixedSizeListArray.from_arrays(numbers, 2)], schema=model.signature.inputs)
    def ask():
        while not ended.is_set():
            try:
                model.infer(records)
            except Exception as error:
                errors.append(repr(error))
            begun.set()
    print("pandas" in sys.modules)
    thread = threading.Thread(target=ask)
    thread.start()
    begun.wait()
    import pandas
    ended.set()
    thread.join()
print(sorted(set(errors)), type(pandas).__name__, type(pandas.__loader__).__name__)
"""
IN_HAND = """
import threading
from mlinfer import ConfigError
from mlinfer._tabular import to_arrow
begun, ended, errors = threading.Event(), threading.Event(), []
def ask():
    while not ended.is_set():
        try:
            to_arrow(1)
        except ConfigError:
            pass
        except Exception as error:
            errors.append(repr(error))
        begun.set()
thread = threading.Thread(target=ask)
thread.start()
begun.wait()
import pandas
ended.set()
thread.join()
print(sorted(set(errors)))
"""


@pytest.fixture
def folder(tmp_path):
    x = np.array([[0.0, 1.0], [1.0, 2.0], [-1.0, 0.0], [2.0, 2.0]])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, ["no", "yes", "no", "yes"])
    mlinfer.save(model, tmp_path / "model.mlinfer", example=x)
    return tmp_path


def printed(folder, *statements):
    command = [sys.executable, "-c", "\n".join(statements)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=150, cwd=folder
    ).stdout.splitlines()


def test_a_saved_model_that_scikit_learn_answers_does_not_import_pandas(folder):
    assert printed(folder, ASKED) == ["['yes', 'no']", "False True"]


def test_scikit_learn_finds_pandas_when_it_is_given_a_data_frame(folder):
    assert printed(folder, ASKED, FIXES)[2:] == ["False", "True True"]
    assert printed(folder, ASKED, FRAME)[2:] == printed(folder, "import sys", FRAME)


def test_a_thread_that_imports_pandas_meanwhile_gets_it(folder):
    assert printed(folder, MEANWHILE) == ["True"]


def test_a_model_answers_while_another_thread_imports_pandas(folder):
    assert printed(folder, LATER) == ["False", "[] module SourceFileLoader"]


def test_data_in_hand_are_looked_at_while_another_thread_imports_pandas(tmp_path):
    assert printed(tmp_path, IN_HAND) == ["[]"]
