"""PostgreSQL, a server outside of the process that is killed, passes the kit that strangers use."""

import secrets

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from mlinfer.destinations import SqlDestination
from mlinfer.testing import check_destination
from mlinfer.testing.pytest import cases
from postgres import PASSWORD, PostgresServer

SERVER = []
"""The server, while there is one: checks are named before it is started."""


@pytest.fixture(scope="module", autouse=True)
def server():
    with PostgresServer.running() as running:
        SERVER.append(running)
        yield
        SERVER.clear()


def into(**more):
    """A new place for each new folder: the schema of a user of its own, in one database."""

    def make(_):
        name = f"t_{secrets.token_hex(8)}"
        with psycopg.connect(SERVER[0].url(), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), PASSWORD)
            )
            connection.execute(sql.SQL("CREATE SCHEMA AUTHORIZATION {}").format(sql.Identifier(name)))
        return SqlDestination(SERVER[0].url(user=name), "found", **more)

    return make


def table_of(destination):
    """The rows as the database's own client gives them."""
    with psycopg.connect(destination.url, row_factory=dict_row) as connection:
        there = connection.execute("SELECT to_regclass('found') AS name").fetchone()["name"]
        return connection.execute("SELECT * FROM found").fetchall() if there else []


@cases(check_destination(into(), table_of, kills=8))
def test_postgresql_destination(check):
    check()


@cases(check_destination(into(key="id"), table_of, kills=8))
def test_postgresql_destination_with_a_key(check):
    check()
