"""Opens everything a run writes to, and knows how far the last run came."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from mlinfer._checkpoint import ANEW
from mlinfer._engine._closing import Closing
from mlinfer._engine._contract import check_writer
from mlinfer._engine._fingerprint import differences, same, same_but_for_version
from mlinfer._engine._turns import Turns
from mlinfer._errors import ChangedError, ConfigError
from mlinfer._guarantee import shares
from mlinfer._progress import Progress
from mlinfer._protocols import DataDestination, Joins, Remembers, Resumes, Scope, Writer
from mlinfer._rejects import REJECTS
from mlinfer._watching import watches

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from mlinfer._batch import Batch
    from mlinfer._checkpoint import CheckpointFile
    from mlinfer._engine._job import Job


@dataclass
class Output:
    """One open writer. `joined`: the main writer's commit covers it. Shared by lanes, which take turns.

    `unsaved`: there is something to commit, at first the epoch: where it were not stored, an older run could write on.
    `anew`: it replaces what earlier runs have stored here, and does so before the main output: until that has followed, its
    progress says that a run has begun anew and that nothing counts, or the rejects of answers that are still there were gone.
    """

    writer: Writer
    joined: bool = False
    unsaved: bool = True
    turns: Turns = field(default_factory=Turns)
    anew: bool = False

    def write(self, batch: Batch) -> None:
        """Hand over records; durable after the next commit."""
        with self.turns:
            self.unsaved = True
            self.writer.write(batch)

    def commit(self, progress: Progress) -> None:
        """Make what was written durable; a place of files would else get one without records each time."""
        with self.turns:
            if self.unsaved:
                self.writer.commit(replace(progress, fingerprint=ANEW) if self.anew else progress)
                self.unsaved = False

    def follow(self, progress: Progress) -> None:
        """The main output has committed, too."""
        with self.turns:
            if self.anew and isinstance(self.writer, Resumes):
                everywhere = replace(
                    self.writer.committed(), fingerprint=progress.fingerprint, epoch=progress.epoch
                )
                self.writer.commit(everywhere)  # of what other lanes have stored so far, too
                self.anew = False


class Outputs:
    """All outputs of one session: main, rejects and side tables, and the store that holds the progress.

    They are closed with the block, the newest first.
    """

    def __init__(self, job: Job, scope: Scope, epochs: dict[str, int]) -> None:
        self._job, self._scope, self._epochs = job, scope, epochs
        self._stack = ExitStack()
        self._opening = threading.Lock()
        self.main: Output | None = None
        self.rejects: Output | None = None
        self.sides: dict[str, Output] = {}
        self.checkpoint: CheckpointFile | None = None

    def open(self, schema: pa.Schema, side_schemas: Mapping[str, pa.Schema]) -> Progress:
        """Open the main output first, then the others; returns how far the last run came."""
        self._schema = schema
        for name in self._job.side:
            if name not in side_schemas:
                known = ", ".join(side_schemas) or "none"
                msg = f"side: the host has no table {name!r}; its tables: {known}"
                raise ConfigError(msg)
        self.main = self._output("main", self._job.destination, schema)
        if self._job.rejects is not None:
            self.rejects = self._output("rejects", self._job.rejects, REJECTS)
        for name, destination in self._job.side.items():
            self.sides[name] = self._output(f"side/{name}", destination, side_schemas[name])
        progress = self._progress()
        if (
            self._scope.fresh
        ):  # what was left is begun anew in any case, also what an attempt of this run has left
            return progress
        return replace(progress, fingerprint=ANEW) if self._left_anew() else progress

    def another_main(self) -> Output:
        """A further writer of the main output, for a destination that allows several at once."""
        with self._opening:
            return self._output("main", self._job.destination, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)  # type: ignore[arg-type]

    def _output(self, name: str, destination: DataDestination, schema: pa.Schema) -> Output:
        scope = self._scope.of(name)
        main = self.main.writer if self.main else None
        joined = name != "main" and shares(self._job.destination, destination) and isinstance(main, Joins)
        if self._job.replaying and not (joined or name in self._epochs or scope.read_only):
            self._epochs.update(_stored_epoch(name, destination, schema, scope))
        scope = replace(scope, epoch=self._epochs.get(name))
        opening = main.join(destination, schema, scope) if joined else destination.open(schema, scope)  # type: ignore[union-attr]
        role = "destination" if name == "main" else name
        output = Output(self._stack.enter_context(Closing(opening, role, destination)), joined)
        if not joined:
            check_writer(output.writer, destination)
        if isinstance(output.writer, Resumes) and not scope.read_only:
            self._epochs[name] = output.writer.committed().epoch
            output.anew = scope.fresh and not joined and name != "main"
        return output

    def _left_anew(self) -> bool:
        """Whether a run has begun anew beside the main output, and has died before it did so there."""
        beside = [output.writer for output in (self.rejects, *self.sides.values()) if output is not None]
        return any(isinstance(one, Resumes) and one.committed().fingerprint == ANEW for one in beside)

    def _progress(self) -> Progress:
        if self.main and isinstance(self.main.writer, Resumes):
            return self.main.writer.committed()
        if self._job.checkpoint is not None:
            self.checkpoint = self._stack.enter_context(self._job.checkpoint.open(self._scope))
            return self.checkpoint.committed()
        return Progress()


def _stored_epoch(name: str, destination: DataDestination, schema: pa.Schema, scope: Scope) -> dict[str, int]:
    """The epoch under which a replay may work beside the latest run without taking over from it; nothing if there is none."""
    with destination.open(schema, replace(scope, read_only=True)) as writer:
        epoch = writer.committed().epoch if isinstance(writer, Resumes) else 0
    return {name: epoch} if epoch else {}


def stored(job: Job, scope: Scope) -> Progress:
    """The progress of earlier runs, whatever the fields of their output; none where the destination cannot tell."""
    if isinstance(job.destination, Remembers):
        return job.destination.stored(replace(scope.of("main"), read_only=True))
    if job.checkpoint is not None and not job.destination.transactional:
        with job.checkpoint.open(replace(scope, read_only=True)) as file:
            return file.committed()
    return Progress()


def resume_from(progress: Progress, fingerprint: str, job: Job) -> bool:
    """Whether a run may go on from this progress; False: it must begin anew.

    Raises ChangedError: the progress belongs to another model or destination, and the pipeline does not say what to do then.
    """
    if progress.fingerprint == ANEW:  # a run has begun anew and died before its first commit
        if job.replaying:
            msg = f"pipeline {job.name!r}: wanted rejects of answers that are there, found that a run has begun anew and was interrupted; run the pipeline first"
            raise ChangedError(msg)
        return False
    if not progress.positions or same(progress.fingerprint, fingerprint) or job.on_change == "continue":
        return True
    if watches(job.host) and same_but_for_version(progress.fingerprint, fingerprint):
        return True
    if job.on_change == "restart" and not job.replaying:
        return False
    msg = (
        f"pipeline {job.name!r}: wanted the model, columns and destination of the progress so far, found others: "
        f"{differences(progress.fingerprint, fingerprint)}; "
        'use on_change="restart" to score everything anew, or on_change="continue" to go on with what is there now'
    )
    raise ChangedError(msg)
