"""Ports for servers that have to be told theirs."""

import random
import socket
from pathlib import Path

MANY = 10_000
_dice = (
    random.SystemRandom()
)  # several processes of tests ask at once, and each may have set the seed of `random`


def free_port() -> int:
    """A port that nobody has now, and that the system gives to nobody who asks for any while a server starts there."""
    while True:
        try:
            with socket.create_server(("127.0.0.1", _below(_first_given()))) as found:
                return int(found.getsockname()[1])
        except OSError:  # somebody has it
            continue


def _first_given() -> int:
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(told.read_text().split()[0]) if told.exists() else 32_768


def _below(first: int) -> int:
    return _dice.randrange(first - MANY, first) if first > 2 * MANY else 0
