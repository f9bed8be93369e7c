"""The job of a server: records come with requests, not from its source."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from mlinfer._engine import Job
from mlinfer._errors import ComponentError, ConfigError
from mlinfer._layout import Keep, kept_fields
from mlinfer._protocols import DataSource, Reader


def unread(job: Job) -> Job:
    """The same job without its source, which need not be there, nor fit the model.

    It is asked for one thing, here: the types of kept columns that are named without. Raises ConfigError: it cannot tell them.
    """
    return replace(job, source=Unread(repr(job.source)), keep=_typed(job))


def _typed(job: Job) -> Keep:
    if isinstance(job.keep, Mapping):
        return dict(job.keep)  # a copy: it may travel to other processes
    if not job.keep:
        return ()
    try:
        known = None if isinstance(job.keep, str) else job.source.schema()
    except ConfigError as error:
        msg = f"{error}; or give the types of kept columns, which are all that a server asks of a source: keep={{{next(iter(job.keep))!r}: pa.string()}}"
        raise ConfigError(msg) from error
    fields = kept_fields(known, job.keep, repr(job.source))
    return dict(zip(fields.names, fields.types, strict=True))


@dataclass(frozen=True)
class Unread(DataSource):
    """In place of a source that nobody reads."""

    shown: str

    def open(self, partition: str, after: Any, wanted: Any) -> AbstractContextManager[Reader]:
        """Raise ComponentError: a server reads no records."""
        del partition, after, wanted
        msg = f"wanted the records of requests alone, found that {self.shown} was to be read"
        raise ComponentError(msg)

    def __repr__(self) -> str:
        return self.shown
