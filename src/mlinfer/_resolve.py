"""Secrets and places stay out of definitions: a text names the variable or the file that holds them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlinfer._errors import ConfigError
from mlinfer._text import shown
from mlinfer.durable import expect_reachable

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"file:(?=/|\$\{)")
LONGEST_SECRET = 65_536


def resolve(text: str) -> str:
    """What a text stands for: `${NAME}` is an environment variable, `file:/path` the stripped content of a file.

    Parts call this when they open, not when they are made, so that no `repr`, pickle or log shows a secret. What a
    variable or a file holds is taken as it is: it is not resolved again.

    Raises ConfigError: the variable is not set, or the file cannot be read; the message names it, never its content.
    """
    if _FILE.match(text):
        return _content(Path(_VARIABLE.sub(_value, text.removeprefix("file:"))))
    return _VARIABLE.sub(_value, text)


def located(path: str | os.PathLike[str]) -> Path:
    """Where the file or folder is that somebody wrote: variables are looked up as by `resolve`, and `~` is a home folder.

    Every part that takes a path calls this when it opens, so that a path means the same wherever it is written. What is
    relative stays so.

    Raises ConfigError: what `resolve` raises; or it is no path, there is no such home folder, or this user may not enter the
    folders on the way. The message names variables, never what they hold.

    >>> import os
    >>> os.environ["MONTH"] = "2024-05"
    >>> print(located("scores/${MONTH}.csv").as_posix())
    scores/2024-05.csv
    """
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        msg = f"wanted a path as text or Path, found {text!r:.100}; write it as 'folder/name'"
        raise ConfigError(msg)
    resolved = resolve(text)
    if not resolved:
        msg = f"wanted a path, found the empty text{f' that {text} stands for' if text else ''}; the folder you are in is '.'"
        raise ConfigError(msg)
    found = Path(resolved)
    try:
        found = found.expanduser()
    except RuntimeError as error:
        msg = f"{text}: wanted a home folder for {found.parts[0]}, found none; write the path in full"
        raise ConfigError(msg) from error
    try:
        expect_reachable(found)
    except ConfigError:
        if resolved == text:
            raise
        # neither here nor in what caused it: a variable may hold a secret where it should hold a path
        msg = f"{text}: wanted this to stand for a path that this user can follow, found something else; correct it, or let the user into its folders"
        raise ConfigError(msg) from None
    return found


def _value(match: re.Match[str]) -> str:
    name = match[1]
    if not _NAME.fullmatch(name):
        msg = f"wanted the name of an environment variable in ${{...}}, found {shown(name)}"
        raise ConfigError(msg)
    if (value := os.environ.get(name)) is None:
        msg = f"environment variable {name}: wanted a value, found none; set it: export {name}=..."
        raise ConfigError(msg)
    return value


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_SECRET + 1)
    except OSError as error:
        msg = f"secret file {path}: wanted to read it, found: {error.strerror}"
        raise ConfigError(msg) from error
    if len(content) > LONGEST_SECRET:
        msg = f"secret file {path}: wanted at most {LONGEST_SECRET:,} bytes, found more"
        raise ConfigError(msg)
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        msg = f"secret file {path}: wanted UTF-8 text, found other bytes"
        raise ConfigError(msg) from None  # the cause would show the secret's bytes
