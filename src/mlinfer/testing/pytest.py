"""Makes a test of each check; the only module of the kit that knows pytest.

from mlinfer.testing import check_source
from mlinfer.testing.pytest import cases

@cases(check_source(make, RECORDS))
def test_source(check):
    check()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from mlinfer.testing._kit import SKIPPED, Check

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cases"]


def cases(checks: Iterable[tuple[str, Check]]) -> pytest.MarkDecorator:
    """A decorator for a test with one argument `check`: one test per check, named after it.

    What does not concern the part is skipped, with the reason; what it has earned is printed (`pytest -s`, or `-rP`).
    """
    return pytest.mark.parametrize("check", [pytest.param(_case(check), id=name) for name, check in checks])


def _case(check: Check) -> Callable[[], None]:
    def call() -> None:
        said = check()
        if said is not None and said.startswith(SKIPPED):
            pytest.skip(said.removeprefix(SKIPPED))
        if said is not None:
            print(said)  # noqa: T201 - the kit prints what the part has earned

    return call
