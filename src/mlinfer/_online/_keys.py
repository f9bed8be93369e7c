"""Who may ask: keys with a name and perhaps an end, of which the file holds only the digests."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from mlinfer._clock import SystemClock
from mlinfer._errors import ConfigError
from mlinfer._online._wire import Refused
from mlinfer._text import shown

SHORTEST = 22
"""Characters of base64 that hold 128 bits; whatever digest the file names, a shorter key is not looked at."""
BYTES = 32
_DIGEST = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")
_BEARER = re.compile("[Bb]earer +([A-Za-z0-9._~+/=-]{1,512})")
_logger = logging.getLogger("mlinfer")


@dataclass(frozen=True, slots=True)
class Key:
    """One line of the file. `until` is a time in seconds since 1970."""

    name: str
    digest: bytes
    until: float = float("inf")


def new_key(name: str) -> tuple[str, str]:
    """A fresh key, and the line for the file that lets it in. Raises ConfigError: this cannot be a name."""
    if not _NAME.fullmatch(name):
        msg = f"key: wanted a name of letters, digits, '_' and '-' (at most 64), found {shown(name)}"
        raise ConfigError(msg)
    key = secrets.token_urlsafe(BYTES)
    return key, f'{name} = {{ sha256 = "{hashlib.sha256(key.encode()).hexdigest()}" }}'


class Keys:
    """The keys of a file: `NAME = { sha256 = "...", expires = 2027-01-01 }`, one a line; `expires` may be absent.

    Without a file it is `text`, which stays as it is. Raises ConfigError: the file cannot be read, or is not such a file.
    """

    def __init__(self, path: str | os.PathLike[str] | None, text: str = "") -> None:
        self._path = None if path is None else Path(path)
        self._seen = self._state()
        self._keys = _keys(text, "the variable") if self._path is None else _read(self._path)

    def check(self) -> None:
        """What to know before a server starts with these. Raises ConfigError: there are none, so nobody could ask."""
        where = "the variable" if self._path is None else str(self._path)
        if not self._keys:
            msg = f"keys: wanted at least one key in {where}, found none, so nobody could ask; `mlinfer keys new NAME` makes a line of it"
            raise ConfigError(msg)
        if all(key.until <= _now() for key in self._keys):
            _logger.warning("keys: every key in %s has expired: nobody may ask", where)
        with suppress(OSError):
            if self._path is not None and self._path.stat().st_mode & stat.S_IWOTH:
                _logger.warning(
                    "keys: everybody on this machine may write %s, and so let himself in: chmod o-w", where
                )

    def holder(self, authorization: str | None) -> Key:
        """The key that a request shows. Raises Refused: none of ours, or one that has expired."""
        found = _BEARER.fullmatch(authorization or "")
        if found is not None and len(found[1]) >= SHORTEST:
            digest = hashlib.sha256(found[1].encode()).digest()
            same = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
            if same and _now() < same[0].until:
                return same[0]
        raise Refused(
            401, "wanted a valid key, as Authorization: Bearer KEY", header="WWW-Authenticate: Bearer"
        )

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return len(self._keys) > 1

    def holds(self, key: Key) -> bool:
        """Whether a key that was valid once still is."""
        return key in self._keys and _now() < key.until

    def look(self) -> None:
        """Read the file again if it is another one; one that cannot be read changes nothing, and is told."""
        seen = self._state()
        if seen == self._seen or self._path is None:
            return
        self._seen = seen
        try:
            self._keys = _read(self._path)
        except ConfigError as error:
            _logger.error("the keys stay as they were: %s", error)  # noqa: TRY400 - the message says it all
        else:
            _logger.info("the keys are read again: %s", ", ".join(key.name for key in self._keys) or "none")

    def _state(self) -> Any:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _read(path: Path) -> tuple[Key, ...]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        msg = f"keys: wanted a file of keys, found {path}: {error.strerror}; `mlinfer keys new NAME` makes a line of it"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"keys: wanted TOML in {path}, found something else: {error}"
        raise ConfigError(msg) from error
    return _keys(text, str(path))


def _keys(text: str, where: str) -> tuple[Key, ...]:
    try:
        lines = tomllib.loads(text)
    except ValueError as error:
        msg = f"keys: wanted TOML in {where}, found something else: {error}"
        raise ConfigError(msg) from error
    return tuple(_key(name, line, where) for name, line in lines.items())


def _key(name: str, line: Any, where: str) -> Key:
    digest = line.get("sha256") if isinstance(line, dict) else None
    until = line.get("expires") if isinstance(line, dict) else None
    sound = isinstance(digest, str) and _DIGEST.fullmatch(digest) and not line.keys() - {"sha256", "expires"}
    if not sound or not isinstance(until, date | None) or not _NAME.fullmatch(name):
        msg = f'keys: wanted NAME = {{ sha256 = "64 hex digits", expires = 2027-01-01 }} in {where}, found another value for {shown(name)}'
        raise ConfigError(msg)  # without the value, which might be the key itself
    return Key(name, bytes.fromhex(str(digest)), _seconds(until))


def _now() -> float:
    return SystemClock().now().timestamp()


def _seconds(until: date | None) -> float:
    """The moment at which a key ends: a date ends with its beginning, and what names no zone is in UTC."""
    if until is None:
        return float("inf")
    moment = (
        until if isinstance(until, datetime) else datetime(until.year, until.month, until.day, tzinfo=UTC)
    )
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
