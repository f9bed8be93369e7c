"""Ports for servers that have to be told theirs."""

import os
import random
import socket
from pathlib import Path

MANY = 10_000
_dice = (
    random.SystemRandom()
)  # other runs of these tests ask, too, and each may have set the seed of `random`
_given: set[int] = set()
"""Those that this process has had: a server that is to be started there may not have begun to listen."""


def free_port() -> int:
    """A port that nobody has now, and that the system gives to nobody who asks for any while a server starts there."""
    while True:
        try:
            with socket.create_server(("127.0.0.1", _below(_first_given()))) as found:
                port = int(found.getsockname()[1])
        except OSError:  # somebody has it
            continue
        if port not in _given:
            _given.add(port)
            return port


def _first_given() -> int:
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(told.read_text().split()[0]) if told.exists() else 32_768


def _below(first: int) -> int:
    """One of the ports of this process: beside it other workers of the same run look for theirs."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return _dice.randrange(first - MANY + worker, first, workers) if first > 2 * MANY else 0
