"""The access log: who asked for what, how it ended and how long it took; never what a record holds."""

from __future__ import annotations

import logging
import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlinfer._online._routes import Order

_ID = re.compile("[A-Za-z0-9._-]{1,64}")
_logger = logging.getLogger("mlinfer.access")


def access(order: Order | None, status: int, seconds: float) -> str:
    """Log one request, and give its id: the caller's own X-Request-Id if it is a plain one."""
    if order is None:  # what came could not be read, and may hold anything
        number = secrets.token_hex(8)
        _logger.info("- - %d rows=0 ms=0 key=- id=%s", status, number)
        return number
    rows = order.ask.rows if order.ask is not None else 0
    key = order.key.name if order.key is not None else "-"
    what, asked = f"{order.head.method} {order.head.path} {status}", order.head.one("x-request-id")
    return tell(what, rows=rows, seconds=seconds, key=key, asked=asked, trace=order.trace)


def tell(what: str, *, rows: int, seconds: float, key: str, asked: str | None, trace: str | None) -> str:
    """Log one request in our own words, and give its id."""
    number = asked if asked is not None and _ID.fullmatch(asked) else secrets.token_hex(8)
    told = f" trace={trace}" if trace is not None else ""
    _logger.info("%s rows=%d ms=%.3f key=%s id=%s%s", what, rows, 1000 * seconds, key, number, told)
    return number
