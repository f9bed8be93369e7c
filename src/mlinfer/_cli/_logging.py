"""The log on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


@contextmanager
def logging_to_stderr(kind: str, *, debug: bool) -> Iterator[None]:
    """Show the log while the block runs, as `text` or as `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines() if kind == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logger = logging.getLogger("mlinfer")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class JsonLines(logging.Formatter):
    """Every line of the log as a JSON object with its time and level, also those that are not an observer's."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        message = record.getMessage()
        body = json.loads(message) if message.startswith("{") else {"event": "log", "message": message}
        time = datetime.fromtimestamp(record.created, UTC).isoformat()
        return json.dumps({"time": time, "level": record.levelname, **body})
