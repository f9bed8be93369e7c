"""Where a PostgreSQL server is, as a URL says it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from mlinfer import ConfigError

PORT = 5432
OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/?#]+)(?::(?P<password>[^:@/?#]*))?@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:@/?#\[\]]+)(?::(?P<port>[^:@/?#]+))?/(?P<database>[^:@/?#]+)(?:\?(?P<options>[^#]*))?"
)
_VARIABLE = re.compile(r"\$\{[^}]*\}")


@dataclass(frozen=True)
class Address:
    """What the driver needs to connect; shown without the password."""

    host: str
    port: int
    database: str
    user: str | None
    password: str | None = field(repr=False)
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Host, port and database: what messages name."""
        return f"{self.host}:{self.port}/{self.database}"


def address(url: str, look_up: Callable[[str], str]) -> Address:
    """The parts of a URL; `look_up` gives what `${NAME}` stands for, which may hold any character.

    Raises ConfigError, whose message shows nothing of the URL: who knows where in a misspelt one the password is.
    """
    masked = _VARIABLE.sub(lambda found: found[0].replace(":", "_"), url)
    found = _URL.fullmatch(masked)
    if found is None:
        msg = (
            "database: wanted postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found a URL that begins so and goes on "
            "differently; write the characters : / ? # @ % in a name or password as %3A %2F %3F %23 %40 %25, or put it "
            "into an environment variable: ${NAME}"
        )
        raise ConfigError(msg)
    parts = {
        name: None if part is None else look_up(part) if "${" in part else unquote(part)
        for name, part in found.groupdict().items()
        if name != "options"
    }
    host, database = parts["host"], parts["database"]
    assert host is not None and database is not None  # noqa: S101, PT018 - the pattern has them
    options = _options(found["options"] or "", look_up)
    return Address(
        host.strip("[]"), _port(parts["port"]), database, parts["user"], parts["password"], options
    )


def _port(text: str | None) -> int:
    if text is None or text.startswith("${"):  # not looked up yet: the URL is only checked
        return PORT
    if not text.isdecimal() or not 0 < int(text) < 65_536:  # noqa: PLR2004 - ports have 16 bits
        msg = "database: wanted a port between 1 and 65535 in postgresql://USER:PASSWORD@HOST:PORT/DATABASE, found something else"
        raise ConfigError(msg)
    return int(text)


def _options(text: str, look_up: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """The options behind the question mark; only those that cannot change what mlinfer promises."""
    pairs = [part.partition("=") for part in text.split("&") if part]
    if wrong := [name for name, _, _ in pairs if name not in OPTIONS]:
        shown = ", ".join(name if name.isidentifier() else "..." for name in wrong)
        msg = f"database: wanted no options in the URL but {', '.join(OPTIONS)}, found {shown}"
        raise ConfigError(msg)
    found = {name: look_up(value) if "${" in value else unquote(value) for name, _, value in pairs}
    if found.get("sslmode", "prefer") not in SSL_MODES and "${" not in text:
        msg = f"database: wanted sslmode to be one of {', '.join(SSL_MODES)}, found something else"
        raise ConfigError(msg)
    return tuple(sorted(found.items()))
