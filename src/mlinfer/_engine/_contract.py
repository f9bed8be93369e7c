"""What a part hands over is what its protocol says, or the part is named: every guarantee rests on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mlinfer._batch import Batch, RecordIds
from mlinfer._engine._own_output import innermost
from mlinfer._errors import ComponentError
from mlinfer._protocols import Resumes
from mlinfer._signature import Signature
from mlinfer._text import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlinfer._protocols import DataDestination, DataSource, Model, Writer


def names_of(source: DataSource) -> list[str]:
    """The partitions of a source. Raises ComponentError: they are not texts, each there once."""
    found: Any = source.partitions()
    names = None if isinstance(found, str) or not isinstance(found, Iterable) else list(found)
    if names is None or not all(isinstance(name, str) for name in names):
        raise _breach(source, f"partitions() to give a list of names, found {shown(found, 80)}")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise _breach(source, f"each partition to be listed once, found {', '.join(twice)} again")
    return names


def check_resume(source: DataSource) -> None:
    """Raise ComponentError for a source that does not say what a restart can do: the guarantee rests on it."""
    if source.resume not in ("seek", "acknowledge", "none"):
        raise _breach(
            source, f"resume to be 'seek', 'acknowledge' or 'none', found {shown(source.resume, 80)}"
        )


def check_schema(schema: object, source: DataSource) -> None:
    """Raise ComponentError for what is neither a schema nor None."""
    if not isinstance(schema, pa.Schema | None):
        raise _breach(source, f"schema() to give a pyarrow.Schema or None, found {type(schema).__name__}")


def check_batch(batch: Any, partition: str, source: DataSource) -> None:
    """Raise ComponentError for what is no batch of this partition, or tells no position though the source can seek."""
    if not isinstance(batch, Batch) or not isinstance(batch.records, pa.RecordBatch):
        what = (
            f"a Batch of {type(batch.records).__name__}" if isinstance(batch, Batch) else type(batch).__name__
        )
        raise _breach(source, f"read() to give a Batch of a pyarrow.RecordBatch, or None, found {what}")
    if batch.partition != partition:
        raise _breach(
            source, f"a batch of the partition {partition!r}, found one of {shown(batch.partition)}"
        )
    if batch.position is None and source.resume == "seek":
        raise _breach(source, "the position behind each batch, as resume='seek' says, found None")
    if not isinstance(batch.ids, RecordIds):
        raise _breach(source, f"RecordIds for the ids of a batch, found {type(batch.ids).__name__}")
    batch.ids._expect(len(batch), partial(_named, source))  # noqa: SLF001 - no part has a use for it


def check_positions(positions: Mapping[str, object]) -> None:
    """Raise ComponentError for a position that would not come back from a store as it is."""
    for partition, position in positions.items():
        if not _is_json(position):
            msg = f"partition {partition!r}: wanted a position of JSON (texts, numbers, lists, mappings by text), found {shown(position, 80)}; correct the source"
            raise ComponentError(msg)


def check_model(model: Model, host: object) -> None:
    """Raise ComponentError for a model that does not say what it reads and answers."""
    if not isinstance(found := getattr(model, "signature", None), Signature):
        raise _breach(host, f"a model with a signature (a Signature), found {type(found).__name__}")


def check_writer(writer: Writer, destination: DataDestination) -> None:
    """Raise ComponentError for a writer that cannot tell what it has stored, though its destination says so."""
    if destination.transactional and not isinstance(writer, Resumes):
        raise _breach(
            destination,
            "a writer that tells its progress by committed(), as transactional=True says, found none",
        )


def gave_up(error: SystemExit) -> ComponentError:
    """A part must not end the program around it, least of all with a code that means something else."""
    found = ComponentError(
        f"a part called sys.exit({error.code!r}); let it raise an error that says what is wrong"
    )
    found.__cause__ = error
    return found


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float)


def _breach(part: object, what: str) -> ComponentError:
    return ComponentError(f"{_named(part)}: wanted {what}; correct the part")


def _named(part: object) -> str:
    """What a part is called; of one that hands on what another gave it, both may be meant."""
    outer, inner = type(part).__name__, innermost(part)
    return outer if inner is part else f"{outer} around {type(inner).__name__}"
