"""skops is imported without its survey, and nobody sees a difference but the time."""

import subprocess
import sys

from sklearn.utils import all_estimators

from mlinfer.hosts import _trusted

SEEN = """
import skops.io._trusted_types as found
print(sorted((name, sorted(map(str, list(value)))) for name, value in vars(found).items() if name.endswith("_NAMES")))
"""
QUICK = "from mlinfer.hosts._skops_library import skops_io; skops_io()"
ROUND = """
import sys
from sklearn.preprocessing import FunctionTransformer, StandardScaler
import numpy as np
import skops.io
scaler = FunctionTransformer(np.log1p)
assert skops.io.get_untrusted_types(data=skops.io.dumps(scaler)) == []
print(skops.io.loads(skops.io.dumps(scaler)).transform([[0.0]]))
"""


def printed(*statements):
    command = [sys.executable, "-c", "\n".join(statements)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=150).stdout


def test_whoever_uses_skops_beside_mlinfer_sees_what_skops_trusts_and_the_lists_that_skops_makes():
    assert printed(QUICK, ROUND, SEEN) == printed(ROUND, SEEN)


def test_our_list_settles_usual_models_without_a_survey():
    loading = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from mlinfer.hosts import _skops_files, _skops_library
model = make_pipeline(StandardScaler(), LogisticRegression()).fit([[0.0], [1.0]], ["no", "yes"])
print(_skops_files.load(_skops_files.dump(model), (), "here").predict([[1.0]]), _skops_library._surveyed)
"""
    assert printed(loading) == "['yes'] []\n"


def test_the_estimators_on_our_list_are_scikit_learns_own():
    known = {f"{kind.__module__}.{kind.__name__}" for _, kind in all_estimators()}
    listed = {f"{module}.{name}" for module, names in _trusted.ESTIMATORS.items() for name in names.split()}
    assert known <= listed
    assert [one for one in listed - known if not one.startswith("sklearn.")] == []  # of a newer scikit-learn
