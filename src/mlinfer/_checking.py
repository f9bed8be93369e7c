"""What a run would do, and whether it could: all that it would open is looked at, nothing is written, no record moves."""

from __future__ import annotations

from dataclasses import replace

from mlinfer._engine import Job, Outputs, Plan, demand, names_of, open_model, refuse_own_output
from mlinfer._protocols import Explains, Scope, SideTables, Stateful
from mlinfer._watching import watches


def planned(job: Job) -> Plan:
    """The plan of a job. Loads the model."""
    with open_model(job.host) as model:
        layout = job.lay_out(model.signature)
        found = demand(replace(job, require=None), stateful=isinstance(model, Stateful))
        runs = tuple(model.explain()) if isinstance(model, Explains) else ()
    if watches(job.host):
        runs = (
            *runs,
            "watched: newer versions take over between two batches; a run goes on behind what older ones answered",
        )
    return Plan(
        job.name or "unnamed",
        repr(job.source),
        repr(job.host),
        repr(job.destination),
        layout,
        found,
        runs,
    )


def checked(job: Job) -> Plan:
    """The plan of a job that can run. Raises ConfigError (or one of its kinds) for the first thing that would stop it."""
    plan = planned(job)
    refuse_own_output(job, names_of(job.source))
    with open_model(job.host) as model:
        demand(job, stateful=isinstance(model, Stateful))
        side_schemas = model.side_schemas() if isinstance(model, SideTables) else {}
        scope = Scope(job.name or "", read_only=True)
        with Outputs(job, scope, {}) as outputs:
            outputs.open(plan.layout.output, side_schemas)
    return plan
