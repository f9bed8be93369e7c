"""Everything that can go wrong, sorted by who can fix it.

    MlinferError
    ├── ConfigError          you, before a record moves
    │   ├── PluginNotFound   ... by installing or spelling it right
    │   ├── SchemaError      ... a field is missing or has another type
    │   └── GuaranteeError   ... the parts cannot keep what `require=` asks
    ├── ComponentError       the part that is named; its cause is chained
    │   └── TransientError   nobody: the engine waits and tries again
    ├── RejectsError         whoever sends the data: too many records are bad
    ├── FencedError          nobody: another run has taken over
    ├── ChangedError         you: stored progress belongs to something else
    ├── ConfirmationError    the model: it does not hold on unseen records
    └── RecordErrors         not a failure of the run: these records are bad, the others are fine

    EndOfInput               not an error: a reader's way to say that its partition is finished

A message says what was wanted, what was found and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mlinfer._text import count, sayable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class MlinferError(Exception):
    """The root of every error that mlinfer raises on purpose."""


class ConfigError(MlinferError):
    """The pipeline as described cannot run; nothing has been read or written."""


class PluginNotFound(ConfigError):  # noqa: N818 - reads as a sentence where it is caught
    """No installed package offers a part of this name."""

    def __init__(self, role: str, name: str, installed: Iterable[str]) -> None:
        known = ", ".join(sorted(installed)) or "none"
        super().__init__(f"no {role} is called {name!r}; installed: {known}")
        self._facts = (role, name, tuple(installed))

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Pickle by the facts, for errors cross process boundaries."""
        return type(self), self._facts


class SchemaError(ConfigError):
    """A field is not what it must be."""

    def __init__(self, field: str, wanted: object, found: object, advice: str) -> None:
        super().__init__(f"field {field!r}: wanted {wanted}, found {found}; {advice}")
        self.field, self.wanted, self.found, self.advice = field, wanted, found, advice

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Pickle by the facts, for errors cross process boundaries."""
        return type(self), (self.field, self.wanted, self.found, self.advice)


class GuaranteeError(ConfigError):
    """The parts cannot keep the guarantee that the pipeline requires."""


class ComponentError(MlinferError):
    """A part failed; the message names it and the cause is chained."""


class TransientError(ComponentError):
    """A part failed in a way that may pass; the engine waits, reopens and goes on.

    `wait` is the time in seconds that the outside world asked for, if it did.
    """

    def __init__(self, message: str, *, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class RejectsError(MlinferError):
    """More records are bad than the pipeline allows."""


class FencedError(MlinferError):
    """Another run of the same pipeline has taken over this output; this one must stop."""


class ChangedError(MlinferError):
    """Stored progress does not belong to what is about to run (another model, file or format)."""


class ConfirmationError(MlinferError):
    """A trained model does not do on unseen records what was asked of it; no package was written.

    `training` is what was found, a `mlinfer.lifecycle.Training`; as a text, the error ends with its table.
    """

    def __init__(self, message: str, training: Any) -> None:
        super().__init__(message, training)
        self.message, self.training = message, training

    def __str__(self) -> str:
        """What was not reached, and the table."""
        return f"{self.message}\n{self.training}"


class RecordErrors(MlinferError):  # noqa: N818 - several records, one exception
    """Some records are bad and can be named; every other record is fine.

    `rows` are the positions of the bad records in the batch that was handed over, ascending; `kind` is a short reason
    code (`missing_value`) and `message` a sentence: one for all, or one per bad record.
    """

    def __init__(self, rows: Sequence[int], kind: str | Sequence[str], message: str | Sequence[str]) -> None:
        self.rows = [int(row) for row in rows]
        number = len(self.rows)
        self.kinds, self.messages = _one_each(kind, number), _one_each(message, number)
        if not len(self.kinds) == len(self.messages) == number:
            msg = f"wanted one kind and one message per bad record ({number}), found {len(self.kinds)} and {len(self.messages)}"
            raise ValueError(msg)
        super().__init__(self._summary())

    def _summary(self) -> str:
        shown = "; ".join(
            f"record {row}: {kind}: {message}"
            for row, kind, message in zip(self.rows[:3], self.kinds, self.messages, strict=False)
        )
        more = f"; and {len(self.rows) - 3} more" if len(self.rows) > 3 else ""  # noqa: PLR2004 - three are shown
        return f"{count(len(self.rows), 'bad record')}: {shown}{more}"

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Pickle by the facts, for errors cross process boundaries."""
        return type(self), (self.rows, self.kinds, self.messages)


def _one_each(texts: str | Sequence[str], number: int) -> list[str]:
    return [sayable(texts)] * number if isinstance(texts, str) else [sayable(str(text)) for text in texts]


class EndOfInput(Exception):  # noqa: N818 - the end is not an error
    """Raised by a reader: this partition is finished, there will be nothing more."""
