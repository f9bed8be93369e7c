"""The loop: read, conform, coalesce, infer, join, write, commit, acknowledge."""

from mlinfer._engine._job import Batching, Budget, Job, OnChange, Until, Workers
from mlinfer._engine._local import LocalEngine
from mlinfer._engine._outputs import Outputs
from mlinfer._engine._plan import Plan, demand
from mlinfer._engine._session import fingerprint
from mlinfer._engine._signals import Stop
from mlinfer._engine._step import Answers, Step
from mlinfer._engine._workers import ProcessModel, open_model

__all__ = [
    "Answers",
    "Batching",
    "Budget",
    "Job",
    "LocalEngine",
    "OnChange",
    "Outputs",
    "Plan",
    "ProcessModel",
    "Step",
    "Stop",
    "Until",
    "Workers",
    "demand",
    "fingerprint",
    "open_model",
]
