"""What the parts of a pipeline promise to each other.

A *recipe* (`DataSource`, `Host`, `DataDestination`) is inert: comparable, picklable, no I/O in its constructor; write
it as a frozen dataclass. A *session* (`Reader`, `Model`, `Writer`) is live: it begins when the engine enters what `open`
returns and ends when the engine leaves it. Subclass these protocols, and the defaults come along, or match them by
structure. What only some parts can do is a protocol of its own, called a Reader's power, a Model's, and so on: a part has
it by having the methods.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    import numpy as np
    import pyarrow as pa

    from mlinfer._batch import Batch, Position
    from mlinfer._progress import Progress
    from mlinfer._signature import Signature

Resume = Literal["seek", "acknowledge", "none"]


class Reader(Protocol):
    """Reads one partition, from the position it was opened at. One thread owns it."""

    def read(self, max_records: int, timeout: float) -> Batch | None:
        """Whatever is there now, at most `max_records` records, in order.

        Returns None when there is nothing yet, after at most `timeout` seconds.
        Raises EndOfInput when there will be nothing more, TransientError when reopening may help.
        """
        ...


class DataSource(Protocol):
    """Where records come from: a recipe that lists partitions and opens them."""

    bounded: bool = True
    """Whether the source ends by itself; one that does not is asked for its partitions again and again."""

    resume: Resume = "none"
    """What a restart can do: `seek` to a stored position, get back what was not acknowledged, or nothing."""

    def schema(self) -> pa.Schema | None:
        """What is known of the records before reading; None if nothing is. May look outside, holds nothing open."""
        return None

    def partitions(self) -> Sequence[str]:
        """The names of the independent, ordered parts of the input; the same part has the same name for ever."""
        return ("all",)

    def open(
        self, partition: str, after: Position | None, wanted: pa.Schema
    ) -> AbstractContextManager[Reader]:
        """Read a partition from just behind `after` (None: from its beginning).

        `wanted` names the columns to read, with the types that the model and the destination would like; other
        columns need not be read. A column may come in another type, and strings may come dictionary-encoded.
        """
        ...


@runtime_checkable
class Counts(Protocol):
    """A DataSource's power: to count its records without reading them, so that a progress bar knows the whole."""

    def remaining(self, partition: str, after: Position | None) -> int | None:
        """The number of records behind `after` in a partition, bad ones included; None if it is not cheap to know."""
        ...


@runtime_checkable
class Computes(Protocol):
    """A DataSource's power: to name the functions that its records go through, so that a change of them is noticed."""

    def computed_by(self) -> Sequence[Callable[..., Any]]:
        """The functions, in the order in which they are applied."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A DataSource's power: to say which files below its `path` it reads, where these are not its partitions.

    `path` is an attribute that is there without being computed, such as a field of a dataclass: a source that has none, or
    a property, is not asked.
    """

    def file_names(self) -> Iterable[str]:
        """Those that are there now, named by their paths below the part of `path` that holds no wildcard."""
        ...


@runtime_checkable
class Acknowledges(Protocol):
    """A Reader's power: to tell the outside world that records need not be delivered again."""

    def acknowledge(self, position: Position) -> None:
        """Everything up to here is durable at the destination. Called between reads, by the thread that reads."""
        ...


@runtime_checkable
class Drains(Protocol):
    """A Reader's power: to stop taking new records in; reads go on until EndOfInput."""

    def drain(self) -> None:
        """Take nothing new from now on."""
        ...


class Model(Protocol):
    """A model, loaded and ready. One worker owns it unless its host says that it may be shared."""

    @property
    def signature(self) -> Signature:
        """What it takes and what it answers."""
        ...

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch that fits `signature.inputs`: one answer per record, in order, fitting `signature.outputs`.

        May raise RecordErrors to name bad records (the others are asked again) and TransientError (asked again as
        they are). Any other exception makes the engine halve the batch until the guilty records stand alone. Called
        again for the same records after a failure, so it must not keep count by itself. What it has answered must stay as
        it is: `pa.array` of a numpy array looks into its memory, so fill another one next time.
        """
        ...


@runtime_checkable
class InfersArrays(Protocol):
    """A Model's power: numpy arrays in and out. For models that are asked for a few records at a time."""

    def infer_arrays(self, columns: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Answer like `infer`, with one array of n values per output field.

        `columns` has one read-only array per input field, in the order of the signature: shape (n,), or (n, k) for lists
        of length k.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """A Model's power: to say what runs, for the plan."""

    def explain(self) -> Sequence[str]:
        """Sentences for people: what runs, and why in this way."""
        ...


@runtime_checkable
class Exemplifies(Protocol):
    """A Model's power: to show what a record looks like."""

    def example(self) -> pa.RecordBatch | None:
        """A few records that fit `signature.inputs` and that it can answer; None if it knows none."""
        ...


@runtime_checkable
class Renews(Protocol):
    """A Model's power: to hand over to a newer version of itself. For models without memory and side tables.

    Its host says `watch = True`: a run then goes on behind what another version has answered.
    """

    def newer(self) -> Model | None:
        """The version that is to answer from here on, loaded and warmed; None: this one still is. Must not wait.

        Asked before every batch, and by several threads where the host is `shared`. The newer model has the same fields and
        lives as long as what the host's `open` returned. Raises ConfigError, once, for a version that cannot be taken: it
        is told to the observers, and this one goes on.
        """
        ...


class Host(Protocol):
    """What runs a model: a recipe that loads it. Heavy libraries are imported inside `open`."""

    shared: bool = False
    """Whether several threads may call one model at the same time."""

    def open(self) -> AbstractContextManager[Model]:
        """Load the model. Raises ConfigError where it cannot be loaded as described."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """A Model's power: it remembers earlier records of its partition, and its memory survives a crash.

    The engine opens one model per partition, takes the snapshot right after `infer`, stores it with the position
    of that batch, and restores it after a restart and before a batch is tried again.
    """

    def snapshot(self) -> bytes:
        """The memory, as bytes that `restore` understands, also in another process."""
        ...

    def restore(self, state: bytes) -> None:
        """Go back to a snapshot."""
        ...


@runtime_checkable
class SideTables(Protocol):
    """A Model's power: tables to report beside its answers, each with a destination of its own (`side={...}`)."""

    def side_schemas(self) -> Mapping[str, pa.Schema]:
        """The tables it may report, by name."""
        ...

    def drain(self) -> Mapping[str, pa.RecordBatch]:
        """What there is to report since the last call. Called after `infer`; dropped when the attempt failed."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose output this is: progress and epoch are stored per (pipeline, output).

    `output` is `main`, `rejects` or `side/NAME`; `run` identifies one run of the pipeline. `epoch` None asks the store
    to issue the next one; a number reopens under that one, and fails with FencedError when a newer one exists.
    `read_only` (for `check`) looks and creates nothing: no table, no file, no epoch. `fresh` begins anew: what this
    pipeline stored here before, records and progress, is replaced.
    """

    pipeline: str
    output: str = "main"
    run: str = ""
    epoch: int | None = None
    read_only: bool = False
    fresh: bool = False

    def of(self, output: str) -> Scope:
        """The scope of another output of the same pipeline."""
        return replace(self, output=output)


class Writer(Protocol):
    """Writes one output. Called by one thread at a time."""

    def write(self, batch: Batch) -> None:
        """Take these records, in order; may buffer.

        The records fit the schema that `open` was given, save that strings may come dictionary-encoded. May raise
        RecordErrors when it can name the records that it cannot store; then it has taken none of this batch.
        """
        ...

    def commit(self, progress: Progress) -> None:
        """Return only when every record written so far survives a crash.

        A transactional writer stores `progress`, merged into what it holds, in the same atomic step. Raises
        FencedError when a newer epoch exists. May raise RecordErrors with nothing stored and the buffer dropped (what
        joined outputs hold waits for the next commit); the rows are then counted over all records written since the
        last commit.
        """
        ...


@runtime_checkable
class Resumes(Protocol):
    """A Writer's power, and the duty of one that is transactional: to know what it has committed."""

    def committed(self) -> Progress:
        """What the commits so far have stored, merged; its `epoch` is the one that this writer holds.

        Opened read-only: the latest epoch if another writer could work under it beside the run that holds it, else 0.
        """
        ...


@runtime_checkable
class Joins(Protocol):
    """A Writer's power: other outputs that live in the same `store` become part of its own atomic commit."""

    def join(
        self, destination: DataDestination, schema: pa.Schema, scope: Scope
    ) -> AbstractContextManager[Writer]:
        """A writer for another output; its records are stored by this writer's next commit, its own commit does nothing."""
        ...


class DataDestination(Protocol):
    """Where answers go: a recipe that opens one output."""

    transactional: bool = False
    """Records and progress are stored in one atomic step; its writers are `Resumes`."""

    keyed: bool = False
    """A record that is delivered again overwrites itself, by its id or key."""

    store: str | None = None
    """Names the database or the like that holds the output: outputs of one pipeline in one store share a transaction
    (the main output's writer then `Joins`). None: nothing can be shared."""

    holds_one_output: bool = False
    """Whether two outputs of a pipeline cannot lie here; then equal recipes for two of them are refused before anything is
    opened. False: they are kept apart by the scope."""

    concurrent: bool = False
    """Whether several writers of one output may be open at once; then each partition gets its own."""

    commit_seconds: float = 1.0
    """How long records may wait for a commit; 0 commits after every batch. A full buffer is committed at once."""

    def open(self, schema: pa.Schema, scope: Scope) -> AbstractContextManager[Writer]:
        """Create the output, or check that the one that is there fits, and get ready to write.

        Raises ConfigError when what is there has another schema or another origin.
        """
        ...


@runtime_checkable
class Remembers(Protocol):
    """A transactional DataDestination's power: to tell its progress even if the output there has other fields.

    Without it, an output with other fields than the present model's must be begun anew by hand (`from_start=True`).
    """

    def stored(self, scope: Scope) -> Progress:
        """What earlier runs of this pipeline have committed to this output; creates nothing and takes nothing over."""
        ...


@runtime_checkable
class ReadsBack(Protocol):
    """A DataDestination's power: to show what an output holds, so that `mlinfer rejects ls` can print it."""

    def records(self, scope: Scope) -> Iterator[pa.RecordBatch]:
        """The durable records of an output, in the types of the place that holds them; creates nothing.

        Nothing if there is no output yet. Where other pipelines write to the same place, their records may be among them.
        """
        ...


@runtime_checkable
class FillsFolder(Protocol):
    """A DataDestination's power: to tell its files from others in the folder at its `path`.

    A pipeline whose source would read them is then refused. A file at the `path` itself is the destination's own anyway.
    """

    def owns(self, name: str) -> bool:
        """Whether this is how a file in the folder is called that the destination has written, or may come to write."""
        ...


@runtime_checkable
class Prunes(Protocol):
    """A DataDestination's power: to remove old rejects for good, so that `mlinfer rejects purge` can."""

    def prune(self, scope: Scope, before: datetime) -> int:
        """Remove the rejects of a pipeline with a `rejected_at` before this time, in one step; how many rows these were.

        A place that keeps rejects in files that never change may leave those that lie beside newer ones.
        """
        ...
