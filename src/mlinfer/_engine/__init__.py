"""The loop: read, conform, coalesce, infer, join, write, commit, acknowledge."""

from mlinfer._engine._contract import check_batch, gave_up, names_of
from mlinfer._engine._delivery import Delivery, Running, refused_rows
from mlinfer._engine._fingerprint import fingerprint
from mlinfer._engine._job import MOST_WORKERS, Batching, Budget, Job, OnChange, Until, Workers
from mlinfer._engine._local import LocalEngine
from mlinfer._engine._outputs import Outputs
from mlinfer._engine._own_output import refuse_own_output
from mlinfer._engine._plan import Plan, demand
from mlinfer._engine._pool import open_model, shared_cores
from mlinfer._engine._processes import (
    UNGUARDED,
    end_here,
    from_bytes,
    leave_signals,
    portable,
    spawn,
    to_bytes,
)
from mlinfer._engine._signals import Sent, Stop, stopping_on_signals
from mlinfer._engine._spending import Spending
from mlinfer._engine._step import Answers, Step
from mlinfer._engine._tally import Tally
from mlinfer._engine._workers import ProcessModel

__all__ = [
    "MOST_WORKERS",
    "UNGUARDED",
    "Answers",
    "Batching",
    "Budget",
    "Delivery",
    "Job",
    "LocalEngine",
    "OnChange",
    "Outputs",
    "Plan",
    "ProcessModel",
    "Running",
    "Sent",
    "Spending",
    "Step",
    "Stop",
    "Tally",
    "Until",
    "Workers",
    "check_batch",
    "demand",
    "end_here",
    "fingerprint",
    "from_bytes",
    "gave_up",
    "leave_signals",
    "names_of",
    "open_model",
    "portable",
    "refuse_own_output",
    "refused_rows",
    "shared_cores",
    "spawn",
    "stopping_on_signals",
    "to_bytes",
]
