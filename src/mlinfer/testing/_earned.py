"""The guarantee that a part has earned, in the words of `explain()`: a pipeline of stand-ins is asked for its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlinfer import DataDestination, DataSource, Guarantee, InferencePipeline, host
from mlinfer.testing._kit import expect


@dataclass(frozen=True)
class Source(DataSource):
    """A source of which only its claim is known."""

    resume: Literal["seek", "acknowledge", "none"] = "none"

    def open(self, *_: object) -> Any:
        """Never called: a plan opens no source."""


@dataclass(frozen=True)
class Destination(DataDestination):
    """A destination of which only its claims are known."""

    transactional: bool = False
    keyed: bool = False

    def open(self, *_: object) -> Any:
        """Never called: a plan opens no destination."""


SOURCES = {
    "from a source that can seek": Source("seek"),
    "from a source that acknowledges": Source("acknowledge"),
    "from a source that can do neither": Source("none"),
}
DESTINATIONS = {
    "into a transactional destination": Destination(transactional=True),
    "into a keyed destination": Destination(keyed=True),
    "into a destination that appends": Destination(),
}


def planned(source: Any, destination: Any) -> Guarantee:
    """What `explain()` says of the two."""
    answer = host(inputs={}, outputs={"answer": "double"}, version="1")(dict)
    return InferencePipeline(source, answer, destination, name="testing").explain().guarantee


def judged(
    part: object,
    claimed: Mapping[str, Guarantee],
    earned: Mapping[str, Guarantee],
    failures: Mapping[str, AssertionError],
) -> str:
    """The guarantees earned, a line each. Raises AssertionError: the part claims more than it earned."""
    for where, claim in claimed.items():
        expect(
            earned[where].level >= claim.level,
            f"that {part!r} earns what it claims {where}, {claim}",
            f"that it earns {earned[where]}, for it fails: {', '.join(failures)}",
            "mend that, or claim less",
        )
    lines = [f"  {where}: {found} ({'; '.join(found.reasons)})" for where, found in earned.items()]
    return "\n".join([f"{part!r} has earned", *lines])


def failed(failures: Mapping[str, AssertionError], names: Sequence[str]) -> bool:
    """Whether one of the checks of these names has failed."""
    return any(name in failures for name in names)
