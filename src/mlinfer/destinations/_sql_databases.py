"""The databases that there are, by the URLs that name them."""

from __future__ import annotations

from mlinfer import ConfigError, resolve
from mlinfer.destinations._postgres import Postgres
from mlinfer.destinations._sql_dialect import Dialect
from mlinfer.destinations._sqlite import Sqlite

_POSTGRES = ("postgresql:", "postgres:")


def database(url: str) -> Dialect:
    """The database of a URL. Raises ConfigError: it is of no kind that is known, or not spelt as it must be."""
    if url.startswith(_POSTGRES):
        return Postgres.at(url, resolve)  # part by part: a password may hold any character
    found = resolve(url)
    return Postgres.at(found, str) if found.startswith(_POSTGRES) else Sqlite.at(found)


def check(url: str) -> None:
    """Raise ConfigError for a URL that cannot work, as far as that shows without looking anything up."""
    given: object = url
    if not isinstance(given, str):
        msg = f"url: wanted a text such as 'sqlite:///scores.db', found {given!r:.100}"
        raise ConfigError(msg)
    if url.startswith(_POSTGRES):
        Postgres.at(url, str)
    elif "${" not in url and not url.startswith("file:"):
        Sqlite.at(url)
