"""What a pipeline is about to do, decided before the first record moves."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from mlinfer._engine._contract import check_resume
from mlinfer._errors import ConfigError
from mlinfer._guarantee import Guarantee, guarantee

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from mlinfer._engine._job import Job
    from mlinfer._layout import Layout
    from mlinfer._protocols import DataDestination


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a pipeline: print it."""

    name: str
    source: str
    host: str
    destination: str
    layout: Layout
    guarantee: Guarantee
    runs: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Several lines for people."""
        signature = self.layout.signature
        lines = [
            f"pipeline    {self.name}",
            f"source      {self.source}",
            *_fields("  reads     ", self.layout.wanted),
            f"host        {self.host}",
            f"  model     {signature.model_id}, version {signature.version[:16]}",
            *(f"  runs      {line}" for line in self.runs),
            f"destination {self.destination}",
            *_fields("  writes    ", self.layout.output),
            f"guarantee   {self.guarantee}",
            *(f"  because   {reason}" for reason in self.guarantee.reasons),
        ]
        return "\n".join(lines)


def demand(job: Job, *, stateful: bool) -> Guarantee:
    """The guarantee of a job. Raises GuaranteeError if it is weaker than required, ConfigError if a name or a place is missing."""
    keeps_progress = job.destination.transactional or job.checkpoint is not None
    if keeps_progress and not job.name:
        msg = (
            f"name: wanted a name for the pipeline, found none; {type(job.destination).__name__} keeps progress "
            'under it, so that the next run goes on where this one ends: name="..."'
        )
        raise ConfigError(msg)
    if job.checkpoint is not None and job.destination.transactional:
        msg = f"checkpoint: {type(job.destination).__name__} stores progress with its records; leave checkpoint= out"
        raise ConfigError(msg)
    outputs = {"main": job.destination}
    if job.rejects is not None:
        outputs["rejects"] = job.rejects
    outputs.update({f"side/{name}": destination for name, destination in job.side.items()})
    _refuse_one_place_for_two(outputs)
    check_resume(job.source)
    found = guarantee(job.source, outputs, keeps_progress=keeps_progress, stateful=stateful)
    if job.require is not None:
        found.demand(job.require)
    return found


def _refuse_one_place_for_two(outputs: Mapping[str, DataDestination]) -> None:
    """Raise ConfigError if two outputs are one recipe that says `holds_one_output`: others keep theirs apart by the scope."""
    for first, second in combinations(outputs, 2):
        one, other = outputs[first], outputs[second]
        if one.holds_one_output and one == other:
            msg = f"{second}: wanted a place of its own, found {one!r}, where {first} goes; name another table, file or folder"
            raise ConfigError(msg)


def _fields(label: str, schema: pa.Schema) -> list[str]:
    shown = [f"{field.name}: {field.type}{'' if field.nullable else ' (required)'}" for field in schema]
    cut = [*shown[:12], f"... and {len(shown) - 12} more"] if len(shown) > 12 else shown  # noqa: PLR2004 - a screenful
    blank = " " * len(label)
    return [f"{label if n == 0 else blank}{line}" for n, line in enumerate(cut or ["nothing"])]
