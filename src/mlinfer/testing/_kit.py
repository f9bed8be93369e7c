"""What the three kits share: how checks are named, left out, expected to fail, remembered and summed up."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from mlinfer import ConfigError

Check: TypeAlias = Callable[[], str | None]
"""Called without arguments: returns None (passed) or a text (how far it went, why it does not apply, what was earned),
or raises AssertionError."""

SKIPPED = "skipped: "


class Skip(Exception):  # noqa: N818 - not an error: the check does not concern this part
    """Raised inside a check: it does not concern this part."""


class Untried(Skip):
    """Raised inside a check: it concerns this part and cannot be made here. The guarantee says so, in these words."""


class Crashed(Exception):  # noqa: N818 - the name of what happens
    """What a session sees when the run dies around it."""


def refuse(wanted: str, found: object, advice: str) -> NoReturn:
    """Raise AssertionError, in the words of the house."""
    raise AssertionError(f"wanted {wanted}, found {found}; {advice}")  # noqa: EM102, TRY003 - the sentence is made here


def expect(condition: object, wanted: str, found: object, advice: str) -> None:
    """Raise AssertionError, in the words of the house, unless the condition holds."""
    if not condition:
        refuse(wanted, found, advice)


def differences(found: Sequence[Any], wanted: Sequence[Any]) -> str:
    """How many are missing and how many are too many, whatever their order; empty if none."""
    counted = ((_minus(wanted, found), "missing"), (_minus(found, wanted), "too many"))
    return " and ".join(f"{len(some)} {word}, such as {some[0]}" for some, word in counted if some)


def _minus(some: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    left = list(some)
    for one in others:
        if one in left:
            left.remove(one)
    return left


@dataclass
class Trial:
    """One check of one part: run once, its outcome remembered for the guarantee."""

    name: str
    function: Callable[[Any, Path], str | None]
    case: Any
    excuse: str | None = None
    told: str | None = None
    """What the guarantee repeats: how far the check went, or that it could not be made."""
    _outcome: list[str | AssertionError | None] = field(default_factory=list)

    def __call__(self) -> str | None:
        """Run in an empty folder of its own. Raises AssertionError."""
        error = self.failure()
        if self.excuse is not None:
            wanted = f"the check {self.name!r} to fail, as expected_failures says ({self.excuse})"
            expect(error is not None, wanted, "that it passes", "take it out of expected_failures")
            return f"failed as expected: {self.excuse}"
        if error is not None:
            raise error
        outcome = self._outcome[0]
        return outcome if isinstance(outcome, str) else None

    def failure(self) -> AssertionError | None:
        """What is wrong; None when it passes or does not apply."""
        if not self._outcome:
            self._outcome.append(self._run())
        outcome = self._outcome[0]
        return outcome if isinstance(outcome, AssertionError) else None

    def _run(self) -> str | AssertionError | None:
        with tempfile.TemporaryDirectory(prefix="mlinfer-testing-", ignore_cleanup_errors=True) as folder:
            try:
                self.told = self.function(self.case, Path(folder))
            except Skip as why:
                self.told = f"but {why}" if isinstance(why, Untried) else None
                return f"{SKIPPED}{why}"
            except AssertionError as error:
                error.args = (f"{self.name}: {error}",)
                return error
            except Exception as error:  # noqa: BLE001 - whatever the part raises where it should not; raised again
                text = f"{self.name}: wanted no error here, found {type(error).__name__}: {error}; see what is chained above"
                failed = AssertionError(text)
                failed.__cause__ = error
                return failed
        return self.told


def trials(
    functions: Mapping[str, Callable[[Any, Path], str | None]],
    case: Any,
    expected_failures: Mapping[str, str] | None,
    sum_up: Callable[[Any, Mapping[str, AssertionError]], str],
) -> Iterator[tuple[str, Check]]:
    """Name and check, pair by pair; at the end the guarantee. Raises ConfigError: an unknown name is expected to fail."""
    excuses = dict(expected_failures or {})
    unknown = sorted(excuses.keys() - {*functions, "guarantee"})
    if unknown or not all(excuses.values()):
        msg = f"expected_failures: wanted names of checks ({', '.join(functions)}, guarantee), each with a reason, found {unknown or excuses}"
        raise ConfigError(msg)
    made = [Trial(name, function, case, excuses.get(name)) for name, function in functions.items()]
    for trial in made:
        yield trial.name, trial
    yield "guarantee", _Guarantee(made, case, excuses.get("guarantee"), sum_up)


@dataclass
class _Guarantee:
    """The last check: asks the others, which run now if nobody has called them."""

    trials: Sequence[Trial]
    case: Any
    excuse: str | None
    sum_up: Callable[[Any, Mapping[str, AssertionError]], str]

    def __call__(self) -> str | None:
        """What the part has earned. Raises AssertionError: it claims more."""
        failures = {trial.name: error for trial in self.trials if (error := trial.failure()) is not None}
        outcome = Trial("guarantee", lambda case, _: self.sum_up(case, failures), self.case, self.excuse)()
        told = [f"  {trial.told}" for trial in self.trials if trial.told is not None]
        return "\n".join([outcome or "", *told]) if self.excuse is None else outcome
