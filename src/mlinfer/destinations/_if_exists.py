"""What may be done with what another pipeline, or somebody else, has put where one is to write."""

from __future__ import annotations

from typing import Literal, get_args

from mlinfer import ConfigError

IfExists = Literal["fail", "append", "replace"]


def check_if_exists(found: str) -> None:
    """Raises ConfigError: it is none of the three."""
    if found not in get_args(IfExists):
        msg = f"if_exists: wanted 'fail', 'append' or 'replace', found {found!r}"
        raise ConfigError(msg)
