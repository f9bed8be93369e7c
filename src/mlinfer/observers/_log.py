"""A run as log lines."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlinfer import (
    BatchInferred,
    BatchRead,
    BatchWritten,
    ConfigError,
    ModelChanged,
    ProgressCommitted,
    RecordsRejected,
    RetryScheduled,
    RunEnded,
    RunStarted,
    observer,
)

LONGEST = 200
_BARE = re.compile(r"[A-Za-z0-9_@%+./:,#-]+")

logger = logging.getLogger("mlinfer")


@dataclass(frozen=True)
class LogObserver:
    """Writes what happens to the standard logger `mlinfer`; contents of records are never logged.

    Args:
        format: `text`: lines of `event key=value`; `json`: one JSON object a line. Time and level are the
            logger's to tell, as for every other line.

    Runs and commits are told at the level INFO, rejects and retries at WARNING, each batch at DEBUG, the end of a run
    that failed at ERROR. Foreign text is escaped and cut, so that one event is one line.
    """

    format: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        """Raise ConfigError for a format there is none of."""
        if self.format not in {"text", "json"}:
            msg = f"LogObserver: wanted format='text' or 'json', found {self.format!r}"
            raise ConfigError(msg)

    @observer
    def run_started(self, event: RunStarted) -> None:
        """INFO."""
        self._log(logging.INFO, "run_started", **_fields(event))

    @observer
    def batch_read(self, event: BatchRead) -> None:
        """DEBUG."""
        self._log(logging.DEBUG, "batch_read", **_fields(event))

    @observer
    def records_rejected(self, event: RecordsRejected) -> None:
        """WARNING."""
        self._log(logging.WARNING, "records_rejected", **_fields(event))

    @observer
    def batch_inferred(self, event: BatchInferred) -> None:
        """DEBUG."""
        self._log(logging.DEBUG, "batch_inferred", **_fields(event))

    @observer
    def batch_written(self, event: BatchWritten) -> None:
        """DEBUG."""
        self._log(logging.DEBUG, "batch_written", **_fields(event))

    @observer
    def progress_committed(self, event: ProgressCommitted) -> None:
        """INFO."""
        self._log(logging.INFO, "progress_committed", **_fields(event))

    @observer
    def retry_scheduled(self, event: RetryScheduled) -> None:
        """WARNING."""
        self._log(logging.WARNING, "retry_scheduled", **_fields(event))

    @observer
    def model_changed(self, event: ModelChanged) -> None:
        """INFO, or WARNING if the newer version could not be taken."""
        self._log(logging.WARNING if event.problem else logging.INFO, "model_changed", **_fields(event))

    @observer
    def run_ended(self, event: RunEnded) -> None:
        """INFO, or ERROR if the run failed."""
        report = event.report
        facts = {
            "name": report.name, "run": report.run, "delivered": report.delivered, "rejected": report.rejected,
            "seconds": report.seconds, "commits": report.commits, "retries": report.retries,
            "stopped": report.stopped, "error": event.error,
        }  # fmt: skip
        self._log(logging.ERROR if event.error else logging.INFO, "run_ended", **facts)

    def _log(self, level: int, event: str, **facts: Any) -> None:
        if not logger.isEnabledFor(level):
            return
        known = {key: _plain(value) for key, value in facts.items() if value is not None}
        if self.format == "json":
            line = json.dumps({"event": event, **known})
        else:
            line = " ".join([event, *(f"{key}={_word(value)}" for key, value in known.items())])
        logger.log(level, "%s", line)


def _fields(event: Any) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}


def _plain(value: Any) -> Any:
    """A value that JSON knows, cut to a length that a line can bear."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value[:10]), *(["..."] if len(value) > 10 else [])]  # noqa: PLR2004 - ten show the kind
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str):
        return value if len(value) <= LONGEST else value[: LONGEST - 3] + "..."
    return value


def _word(value: Any) -> str:
    """A value after `key=`: bare where that is clear, as JSON (which escapes what is not printable) where not."""
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value)
    if isinstance(value, dict):
        return ",".join(f"{_word(key)}:{_word(one)}" for key, one in value.items()) or "{}"
    if isinstance(value, list):
        return ",".join(map(_word, value)) or "[]"
    return json.dumps(value)
