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
    asked = order.head.one("x-request-id") or ""
    number = asked if _ID.fullmatch(asked) else secrets.token_hex(8)
    rows = order.ask.rows if order.ask is not None else 0
    key = order.key.name if order.key is not None else "-"
    _logger.info(
        "%s %s %d rows=%d ms=%.3f key=%s id=%s",
        order.head.method, order.head.path, status, rows, 1000 * seconds, key, number,
    )  # fmt: skip
    return number
