"""The line to a PostgreSQL server: connecting, waiting no longer than agreed, and what its errors mean.

An error is read by its SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). One without comes
from the driver: the line is cut.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mlinfer import ComponentError, ConfigError, MlinferError, TransientError
from mlinfer.destinations._postgres_address import Address

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60.0
LOCK_SECONDS = 30.0
_KEEPING = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_SETTINGS = (
    "SET statement_timeout = {answer}; SET lock_timeout = {lock};"
    " SET idle_in_transaction_session_timeout = {answer}; SET TimeZone = 'UTC';"
    " SET default_transaction_read_only = {read_only};"
    # A commit that has been confirmed is not undone by a power loss right after it.
    " SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
_REFUSED = ("22", "23", "44", "54", "P0001")
_PASSES = ("08", "40", "53", "57", "25006", "25P03", "55006", "55P03")
_YOURS = ("28", "3D", "3F", "42P01", "42703", "42804")
_HOPELESS = ("password authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "not permitted to log in",
             "does not support SSL", "was required")  # fmt: skip


def driver() -> Any:
    """The module `psycopg`. Raises ConfigError: it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        msg = "a PostgreSQL database needs the package psycopg: pip install 'mlinfer[postgres]'"
        raise ConfigError(msg) from error
    return psycopg


def connect(where: Address, *, read_only: bool) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection that begins and ends transactions only when it is told to.

    Raises ConfigError: it will never work like this; TransientError: nobody answers.
    """
    psycopg = driver()
    try:
        connection = psycopg.connect(
            host=where.host, port=where.port, dbname=where.database, user=where.user, password=where.password,
            autocommit=True, prepare_threshold=None, client_encoding="utf8", application_name="mlinfer",
            connect_timeout=CONNECT_SECONDS, **_KEEPING, **dict(where.options),
        )  # fmt: skip
    except psycopg.Error as error:
        said = _sentence(error)
        if any(phrase in said for phrase in _HOPELESS):
            msg = f"database {where}: wanted to be let in, found: {said}"
            raise ConfigError(msg) from error
        msg = f"database {where}: wanted a connection, found: {said}"
        raise TransientError(msg) from error
    with translating(where), answering(connection):
        settings = {"answer": int(ANSWER_SECONDS * 1000), "lock": int(LOCK_SECONDS * 1000)}
        connection.execute(_SETTINGS.format(**settings, read_only="on" if read_only else "DEFAULT"))
    return connection  # type: ignore[no-any-return]


@contextmanager
def answering(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Cut the line when the server has not answered in time: a network that swallows everything never says so."""
    line = socket.socket(fileno=os.dup(connection.fileno()))
    timer = threading.Timer(ANSWER_SECONDS, _cut, (line,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.close()


def _cut(line: socket.socket) -> None:
    with suppress(OSError):  # cut already: whoever waits is awake
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def translating(where: Address) -> Iterator[None]:
    """Raise the driver's errors as ours."""
    try:
        yield
    except driver().Error as error:
        raise trouble(error, where) from error


def trouble(error: psycopg.Error, where: Address) -> MlinferError:
    """What an error means for the run."""
    state, said = error.sqlstate, _sentence(error)
    if state is None and isinstance(error, driver().OperationalError):
        return TransientError(f"database {where}: the connection is lost: {said}")
    text = f"database {where}: {said} ({state or type(error).__name__})"
    if state == "42501":
        return ComponentError(
            f"{text}; grant what is missing and run again: it goes on behind the last commit"
        )
    if state is not None and state.startswith(_PASSES):
        return TransientError(text)
    if state is not None and state.startswith(_YOURS):
        return ConfigError(f"{text}; the table or the database has been changed")
    return ComponentError(text)


def is_refusal(error: psycopg.Error) -> bool:
    """Whether the row is to blame."""
    return error.sqlstate is not None and error.sqlstate.startswith(_REFUSED)


def _sentence(error: psycopg.Error) -> str:
    """What the server says, without the row that it shows behind it."""
    said = error.diag.message_primary or str(error)
    return " ".join(said.split())


def reason(error: psycopg.Error) -> str:
    """Why a row is refused, in a sentence."""
    return _sentence(error)
