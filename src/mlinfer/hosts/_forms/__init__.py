"""Compiled forms: what an estimator computes, written so that numpy can do it alone, and proven to be the same.

`compiled` makes a form of a fitted estimator (it needs scikit-learn), `prove` compares the two, `Form` runs (it does not).
"""

from mlinfer.hosts._forms._compile import NotCompiled, compiled
from mlinfer.hosts._forms._form import Form
from mlinfer.hosts._forms._proof import Proof, prove

__all__ = ["Form", "NotCompiled", "Proof", "compiled", "prove"]
