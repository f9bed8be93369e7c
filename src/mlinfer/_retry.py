"""How long to wait before trying again. Parts classify (`TransientError`), the engine waits."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mlinfer._errors import ConfigError


@dataclass(frozen=True, slots=True)
class Retry:
    """Try up to `attempts` times in a row, waiting longer each time (seconds), with jitter.

    The count starts again whenever something was committed in between.
    """

    attempts: int = 10
    first_wait: float = 0.1
    longest_wait: float = 30.0

    def __post_init__(self) -> None:
        """Raise ConfigError for what would not even try once, or would wait for less than no time."""
        if self.attempts < 1 or not (self.first_wait >= 0 and self.longest_wait >= 0):
            msg = f"retry: wanted 1 attempt (no retries) or more and waits of 0 seconds or more, found {self}"
            raise ConfigError(msg)

    def wait(self, failures: int, asked: float | None, dice: random.Random) -> float:
        """Seconds to wait after the n-th failure in a row; what the outside world asked for comes first."""
        if asked is not None:
            return asked
        longest = min(self.longest_wait, self.first_wait * 2.0 ** (failures - 1))
        return longest * (0.5 + dice.random() / 2)
