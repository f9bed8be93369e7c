"""The pipeline: one definition that runs as a batch job, as an endless stream, on data in hand and as a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import pyarrow as pa

from mlinfer._answering import Answering, answer
from mlinfer._checking import checked, planned
from mlinfer._engine import (
    Batching,
    Budget,
    Job,
    LocalEngine,
    OnChange,
    Plan,
    Stop,
    Until,
    Workers,
    open_model,
    stopping_on_signals,
)
from mlinfer._errors import ConfigError
from mlinfer._layout import Keep
from mlinfer._preview import preview
from mlinfer._protocols import DataDestination, DataSource, Host
from mlinfer._replay import Choice, open_rejects, replay_of
from mlinfer._retry import Retry
from mlinfer._tabular import is_matrix, is_rows, narrowed, to_arrow

if TYPE_CHECKING:
    from mlinfer._checkpoint import Checkpoint
    from mlinfer._online import Crew, Server, ServingOptions
    from mlinfer._report import RunReport


_loading = threading.Lock()  # several threads may ask one pipeline for its first answers


class InferencePipeline:
    """Records from a source, through the model of a host, to a destination.

    Args:
        source: where records come from.
        host: what runs the model over them.
        destination: where the answers go.
        name: identifies the pipeline; needed wherever progress is kept.
        keep: source columns that travel to the destination as the source reads them; names, or names with Arrow types where
            the source does not know its columns before it is read, or should read them otherwise.
        columns: for inputs of the model that are called differently in the source, `{model_name: source_name}`.
        lineage: columns that tell where each answer comes from, behind the answers: some of `record_id`, `model_id`,
            `model_version`, `run_id`, `trace_id` (texts) and `inferred_at` (a time in UTC).
        require: `exactly-once`, `at-least-once` or `at-most-once`: `run` refuses to begin if the parts cannot keep it.
        rejects: where records go that cannot be answered; without it the first one ends the run.
        side: destinations of the host's side tables, by name.
        checkpoint: keeps the progress for a destination that cannot store it with its records.
        on_change: what to do when stored progress belongs to another model: `stop`, `continue` or `restart`.
        budget: how many rejects are too many.
        batching: how many records the model sees at once, at most.
        workers: how many batches are inferred at the same time: a number of threads, or `Workers(n, "process")`.
        timeout: seconds that one call of the model may take; the model then runs in a process that can be ended.
        retry: how transient failures are waited out.
        observers: objects that are told what happens (progress bars, logs, metrics).
        engine: what runs the job; the local engine by default.

    Raises:
        ConfigError: the arguments contradict each other.

    The constructor does no I/O.

    >>> import mlinfer
    >>> from mlinfer.destinations import MemoryDestination
    >>> from mlinfer.sources import MemorySource
    >>> @mlinfer.host(inputs={"n": "double"}, outputs={"half": "double"}, takes="numpy", version="1")
    ... def half(n):
    ...     return n / 2
    >>> answers = MemoryDestination()
    >>> pipeline = InferencePipeline(MemorySource({"n": [1.0, 4.0]}), half, answers, name="halves", keep=["n"])
    >>> print(pipeline.run())
    2 delivered, 0 rejected, exactly-once ...
    >>> answers.table().to_pylist()
    [{'n': 1.0, 'half': 0.5}, {'n': 4.0, 'half': 2.0}]
    """

    def __init__(  # noqa: PLR0913 - the one place where a pipeline is put together; all but three by keyword
        self,
        source: DataSource,
        host: Host,
        destination: DataDestination,
        *,
        name: str | None = None,
        keep: Keep = (),
        columns: Mapping[str, str] | None = None,
        lineage: Sequence[str] = (),
        require: str | None = None,
        rejects: DataDestination | None = None,
        side: Mapping[str, DataDestination] | None = None,
        checkpoint: Checkpoint | None = None,
        on_change: OnChange = "stop",
        budget: Budget | None = None,
        batching: Batching | None = None,
        workers: int | Workers | None = None,
        timeout: float | None = None,
        retry: Retry | None = None,
        observers: tuple[object, ...] | list[object] = (),
        engine: LocalEngine | None = None,
    ) -> None:
        _check_objects(engine, observers)
        self.job = Job(
            source=source, host=host, destination=destination, name=name, keep=keep, columns=_copied(columns),
            lineage=lineage, require=require, rejects=rejects, side=_copied(side), checkpoint=checkpoint,
            on_change=on_change, budget=budget or Budget(), batching=batching or Batching(), workers=_workers(workers), timeout=timeout,
            retry=retry or Retry(), observers=tuple(observers),
        )  # fmt: skip
        self._engine = engine or LocalEngine()
        self._answering: Answering | None = None

    def __repr__(self) -> str:
        """The name and the three parts."""
        job = self.job
        return f"InferencePipeline({job.source!r}, {job.host!r}, {job.destination!r}, name={job.name!r})"

    def run(self, *, until: Until = "end", from_start: bool = False, stop: Stop | None = None) -> RunReport:
        """Deliver the source's records, beginning behind what earlier runs of this name have committed.

        Args:
            until: `end`: a bounded source ends by itself, an unbounded one runs until it is stopped. `idle`: an unbounded
                source ends when it has nothing new.
            from_start: forget the progress and replace what this pipeline has delivered before.
            stop: ask it to drain the run from another thread: `stop.ask("reason")`. SIGTERM and SIGINT do the same when
                `run` is called in a program's main thread.

        Raises:
            ConfigError: the parts do not fit together; no record has moved.
            RejectsError: more records are bad than the budget allows.
            ComponentError: a part failed.
            FencedError: another run of the same name has taken over.
            ChangedError: stored progress belongs to another model or input.
        """
        if until not in {"end", "idle"}:
            msg = f"until: wanted 'end' or 'idle', found {until!r}"
            raise ConfigError(msg)
        return self._engine.run(self.job, until=until, from_start=from_start, stop=stop)

    def replay(self, choice: Choice | None = None, *, stop: Stop | None = None) -> RunReport:
        """Send rejected records through this pipeline once more, under their own ids.

        What is delivered is marked in the place of the rejects, in the transaction of the answers where they share one, and
        is not replayed again; what is rejected again stays open. A replay has a progress of its own: the next `run` goes on
        where the last one ended. An answer that the destination refused is handed to it again as it is.

        Args:
            choice: which of the open rejects; all of them by default.
            stop: as for `run`.

        Raises:
            ConfigError: the rejects cannot be read back, the model has a memory, or none of them holds its record.
            ChangedError: the model is another one, and `on_change` is not `continue`.
            RejectsError: all of them were rejected again.
        """
        return self._engine.run(replay_of(self.job, choice or Choice()), stop=stop)

    def rejected(self, choice: Choice | None = None) -> pa.Table:
        """The open rejects, as `REJECTS`: each record once, the oldest first; without those that a replay has delivered.

        Raises ConfigError: there is no place for rejects, or it cannot be read back.
        """
        return (choice or Choice()).of(open_rejects(self.job))

    def explain(self) -> Plan:
        """The plan: columns read, model, output schema, guarantee and why. Loads the model, writes nothing."""
        return planned(self.job)

    def check(self) -> Plan:
        """Look at everything a run would open, and open nothing for writing; no record moves.

        Raises ConfigError (or one of its kinds) for the first thing that would stop a run before its first record, as far as that
        shows without writing: a folder that may not be written to does not.
        """
        return checked(self.job)

    def preview(self, records: int = 10) -> pa.Table:
        """Answers for the first records of the source; nothing is delivered and no progress is kept.

        The columns `status` and `status_detail` say what is wrong with a record that has no answer; those that could not even
        be decoded stand behind the others of their partition.

        Raises ConfigError: fewer than one record is asked for, or a kept column or an answer bears the name of these columns.
        """
        if records < 1:
            msg = f"preview: wanted a number of records of 1 or more, found {records}"
            raise ConfigError(msg)
        return preview(self._answers(), self.job, records, clock=self._engine.clock)

    def infer(self, records: Any, *, on_reject: Literal["raise", "null"] = "raise") -> pa.Table:
        """Answer records in hand: the same host, no destination.

        Args:
            records: an Arrow table or batch, pandas, polars (anything with the Arrow PyCapsule interface), a numpy array,
                a dict of columns, a list of dicts or of strings; n records.
            on_reject: `raise` RecordErrors for bad records, or answer them with nulls and say why in a column `status`.

        Returns:
            A table of n rows in the same order: kept columns, then answers.

        Raises:
            RecordErrors: records are bad; its `rows` say which.
            ConfigError: with `null`, a kept column or an answer is called `status` or `status_detail`.
            SchemaError: a column is missing or of another type.
        """
        if on_reject not in {"raise", "null"}:
            msg = f"on_reject: wanted 'raise' or 'null', found {on_reject!r}"
            raise ConfigError(msg)
        answering = self._answers()
        no_rows = isinstance(records, list | tuple) and not records
        if no_rows or is_matrix(records) or is_rows(records):
            data = records
        else:
            renamed = self.job.columns
            needed = [renamed.get(name, name) for name in answering.signature.inputs.names]
            data = to_arrow(narrowed(records, needed, self.job.keep))
        return answer(answering, data, self.job, on_reject, clock=self._engine.clock)

    @contextmanager
    def serving(
        self, bind: str = "127.0.0.1:0", **options: Unpack[ServingOptions]
    ) -> Iterator[Server | Crew]:
        """Serve while the block runs: `with pipeline.serving() as server: ... server.url`. Port 0 takes a free one.

        `POST /predict` takes a record (a JSON object by column name) or a list of records. A request is atomic: one bad
        record fails it, naming the record. The destination becomes the prediction log, under the name NAME/serve.

        Args:
            bind: HOST:PORT. An address that others can reach needs `tls`, `keys` and `names`.
            options: `tls=("cert.pem", "key.pem")`: speak HTTPS. `keys="keys.toml"`: answer those who show a key that this
                file names. `names=["scores.example"]`: the host names by which clients ask. `insecure=True`: listen where
                others can reach it, without TLS or keys. `log="before_reply"`: give an answer only when the destination has
                made it durable. `log_sample=0.01`: log so many of the answers, drawn by chance. `access_log=True`: tell the
                logger `mlinfer.access` about every request. `grpc_bind="127.0.0.1:8081"`: speak the Open Inference Protocol
                over gRPC there, too. `workers=4`: so many processes answer at the address, each with a model of its own; on
                Linux.

        Raises ConfigError: the address is taken, or others can reach it and it lacks what that needs; the host cannot be
        sent to workers. Raises ComponentError: workers ended again and again.
        """
        from mlinfer._online import Serving, serving

        with serving(self.job, Serving(bind, **options)) as server:
            yield server

    def serve(
        self, bind: str = "127.0.0.1:8080", *, stop: Stop | None = None, **options: Unpack[ServingOptions]
    ) -> None:
        """Serve until SIGTERM or SIGINT; then finish what was accepted, write the log, and return. Options: see `serving`."""
        stop = stop or Stop()
        with stopping_on_signals(stop), self.serving(bind, **options) as server:
            while server.failure is None and not stop.wait(0.2):
                pass

    def close(self) -> None:
        """Let go of the model that `infer` and `preview` have loaded."""
        if self._answering is not None:
            self._answering.close()
            self._answering = None

    def __enter__(self) -> Self:
        """The pipeline itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A pipeline travels without its loaded model."""
        return {**self.__dict__, "_answering": None}

    def _answers(self) -> Answering:
        with _loading:
            if self._answering is None:
                with ExitStack() as stack:
                    model = stack.enter_context(open_model(self.job.host))
                    self._answering = Answering(model, stack.pop_all())
            return self._answering


def _copied(given: Any) -> Any:
    """A dict of one's own; what is no mapping as it is, for `Job` to refuse."""
    return dict(given or {}) if given is None or isinstance(given, Mapping) else given


def _workers(asked: int | Workers | None) -> Workers:
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int | Workers)):
        msg = f'workers: wanted a number of threads, or Workers(n, "process"), found {asked!r}'
        raise ConfigError(msg)
    return asked if isinstance(asked, Workers) else Workers(1 if asked is None else asked)


def _check_objects(engine: object, observers: object) -> None:
    """Raise ConfigError for the names that a file in TOML would give instead of objects."""
    if engine is not None and (isinstance(engine, type) or not hasattr(engine, "run")):
        msg = f"engine: wanted an engine, found {engine!r}; leave it out to run on this machine (names are for files in TOML)"
        raise ConfigError(msg)
    given = observers if isinstance(observers, tuple | list) else (observers,)
    for one in given:
        if isinstance(one, str | type):
            msg = (
                f"observers: wanted objects, such as ProgressBar() or LogObserver() of mlinfer.observers, found {one!r} "
                "(names are for files in TOML)"
            )
            raise ConfigError(msg)
