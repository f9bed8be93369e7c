"""What mlinfer keeps in a database beside the user's tables: who writes, which run is the latest, how far it came."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mlinfer import ChangedError, FencedError, Progress, Scope
from mlinfer.destinations._sql_dialect import Dialect
from mlinfer.sql import quoted

FORMAT = 1
SERVER = "/serve"
"""What a pipeline's name ends with when it is a server that keeps its log."""
_TABLES = {
    "mlinfer_epochs": (
        "CREATE TABLE mlinfer_epochs (pipeline TEXT NOT NULL, output TEXT NOT NULL, epoch INTEGER NOT NULL,"
        ' "table" TEXT, created INTEGER, partitions INTEGER, PRIMARY KEY (pipeline, output))'
    ),
    "mlinfer_progress": (
        "CREATE TABLE mlinfer_progress (pipeline TEXT NOT NULL, output TEXT NOT NULL,"
        ' "partition" TEXT NOT NULL, position TEXT, state {binary}, fingerprint TEXT NOT NULL, epoch INTEGER NOT NULL,'
        " version INTEGER NOT NULL, checksum TEXT NOT NULL, PRIMARY KEY (pipeline, output, partition))"
    ),
}
_SAVE = (
    'INSERT INTO mlinfer_progress (pipeline, output, "partition", position, state, fingerprint, epoch, version, checksum)'
    ' VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (pipeline, output, "partition") DO UPDATE SET'
    " position = excluded.position, state = excluded.state, fingerprint = excluded.fingerprint,"
    " epoch = excluded.epoch, version = excluded.version, checksum = excluded.checksum"
)
_LOAD = 'SELECT pipeline, output, "partition", position, state, fingerprint, epoch, version, checksum FROM mlinfer_progress'
_FORGET = "DELETE FROM mlinfer_progress WHERE pipeline = ? AND output = ?"
_TABLE_OF = 'SELECT "table", created FROM mlinfer_epochs WHERE pipeline = ? AND output = ?'
_TAKE_TABLE = 'UPDATE mlinfer_epochs SET "table" = ?, created = ? WHERE pipeline = ? AND output = ?'
_COUNT = (
    "UPDATE mlinfer_epochs SET partitions = (SELECT count(*) FROM mlinfer_progress AS kept"
    " WHERE kept.pipeline = mlinfer_epochs.pipeline AND kept.output = mlinfer_epochs.output)"
    " WHERE pipeline = ? AND output = ?"
)
_COUNTED = "SELECT partitions FROM mlinfer_epochs WHERE pipeline = ? AND output = ?"
_WRITERS = (
    "SELECT pipeline, output, created, (SELECT count(*) FROM mlinfer_progress AS kept"
    " WHERE kept.pipeline = mlinfer_epochs.pipeline)"
    ' FROM mlinfer_epochs WHERE "table" = ?'
)
_FENCE = (
    "UPDATE mlinfer_epochs SET epoch = epoch + 1 WHERE pipeline <> ?"
    ' AND pipeline IN (SELECT pipeline FROM mlinfer_epochs WHERE "table" = ?)'
)
_RELEASE = (
    'UPDATE mlinfer_epochs SET "table" = NULL, created = NULL'
    ' WHERE "table" = ? AND NOT (pipeline = ? AND output = ?)'
)
_EPOCH_OF = "SELECT epoch FROM mlinfer_epochs WHERE pipeline = ? AND output = ?"


@dataclass(frozen=True)
class State:
    """The tables `mlinfer_epochs` and `mlinfer_progress`, as one output sees them. Begins no transaction itself."""

    dialect: Dialect
    connection: Any
    scope: Scope

    def prepare(self) -> None:
        """Make the tables where they are not there yet."""
        for table, statement in _TABLES.items():
            found = self.dialect.columns(self.connection, table)
            if found is None:
                self._execute(statement.format(binary=self.dialect.binary))
            elif table == "mlinfer_epochs" and "partitions" not in found:  # an older version made it
                self._execute("ALTER TABLE mlinfer_epochs ADD COLUMN partitions INTEGER")

    def take_epoch(self) -> int:
        """The next epoch, or the one that the scope names. Raises FencedError: a newer one exists."""
        if self.scope.epoch is not None:
            self.check_epoch(self.scope.epoch)
            return self.scope.epoch
        self._execute(
            "INSERT INTO mlinfer_epochs (pipeline, output, epoch) VALUES (?, ?, 1)"
            " ON CONFLICT (pipeline, output) DO UPDATE SET epoch = mlinfer_epochs.epoch + 1",
            self._key,
        )
        return self._epoch() or 0

    def check_epoch(self, epoch: int) -> None:
        """Raise FencedError unless this is the latest run."""
        found = self._epoch()
        if found != epoch:
            name, output = self._key
            msg = (
                f"pipeline {name!r}, output {output!r} in {self.dialect.place}: wanted to be its only run (epoch {epoch}), "
                f"found that another one has taken over (epoch {found}); nothing of this one was stored since. "
                "Let that run work, or stop it before you start this one again"
            )
            raise FencedError(msg)

    def stored_epoch(self) -> int:
        """The epoch of the latest run; 0 if there was none."""
        return (self._epoch() or 0) if self._there else 0

    def table(self) -> tuple[str, bool] | None:
        """The table that this output has written so far, and whether the pipeline made it."""
        if not self._there:
            return None
        found = self._execute(_TABLE_OF, self._key)
        return (found[0][0], bool(found[0][1])) if found and found[0][0] else None

    def take_table(self, table: str, *, created: bool) -> None:
        """Remember which table this output writes."""
        self._execute(_TAKE_TABLE, (table, int(created), *self._key))

    def other_writers(self, table: str) -> list[str]:
        """Other outputs that write this table, in words."""
        if not self._there:
            return []
        rows = self._execute('SELECT pipeline, output FROM mlinfer_epochs WHERE "table" = ?', (table,))
        return [f"pipeline {name!r} ({output})" for name, output in rows if (name, output) != self._key]

    def beside_its_server(self, table: str) -> bool:
        """Whether nobody else writes this table but the same pipeline as a server, or as a run: they are one definition."""
        rows = (
            self._execute('SELECT pipeline, output FROM mlinfer_epochs WHERE "table" = ?', (table,))
            if self._there
            else []
        )
        others = {(name.removesuffix(SERVER), output) for name, output in rows if (name, output) != self._key}
        return others == {(self._key[0].removesuffix(SERVER), self._key[1])}

    def nobodys(self, table: str) -> bool:
        """Whether this table is empty, and the pipelines that made it hold no progress: they have dropped all, or not begun."""
        if not self._there or self._execute(f"SELECT 1 FROM {quoted(table)} LIMIT 1"):  # noqa: S608 - a checked name
            return False
        rows = self._execute(_WRITERS, (table,))
        others = [made and not kept for name, output, made, kept in rows if (name, output) != self._key]
        return bool(others) and all(others)

    def release(self, table: str) -> None:
        """Take a table from all others that write it; a run of theirs that is still at work can commit nothing more."""
        self._execute(_FENCE, (self._key[0], table))
        self._execute(_RELEASE, (table, *self._key))

    def load(self) -> Progress:
        """All progress of this output. Raises ChangedError: it is damaged, some is lost, or a newer mlinfer wrote it."""
        progress, latest = Progress(), -1
        positions, states, fingerprint = dict(progress.positions), dict(progress.states), ""
        wanted = self._counted()  # first: a run beside this one may only add to them
        rows = self._execute(_LOAD) if self._there else []
        for pipeline, output, partition, position, state, found, epoch, version, checksum in rows:
            key, facts = (pipeline, output), (position, state, found, epoch, version)
            if key != self._key:
                # A damaged name makes a row of ours look like another's, and the partition would begin again.
                if not isinstance(version, int) or version <= FORMAT:
                    self._verify(key, partition, facts, checksum)
                continue
            self._verify(key, partition, facts, checksum)
            if position is not None:
                positions[partition] = json.loads(position)
            if state is not None:
                states[partition] = state
            # one run has one fingerprint; with on_change="continue" older rows keep an older one
            if epoch > latest:
                latest, fingerprint = epoch, found
        self._miss_none(wanted, len({**positions, **states}))
        return Progress(positions, states, fingerprint)

    def save(self, partitions: set[str], progress: Progress, epoch: int) -> None:
        """Store the progress of these partitions."""
        for partition in sorted(partitions):
            position = json.dumps(progress.positions[partition]) if partition in progress.positions else None
            facts = (position, progress.states.get(partition), progress.fingerprint, epoch, FORMAT)
            self._execute(_SAVE, (*self._key, partition, *facts, _checksum(self._key, partition, facts)))
        self._execute(_COUNT, self._key)

    def forget(self) -> None:
        """Drop the progress: the output begins anew."""
        self._execute(_FORGET, self._key)
        self._execute(_COUNT, self._key)

    @property
    def _key(self) -> tuple[str, str]:
        return self.scope.pipeline, self.scope.output

    @property
    def _there(self) -> bool:
        return self.dialect.columns(self.connection, "mlinfer_epochs") is not None

    def _counted(self) -> int:
        """Of how many partitions the last commit knew; 0 if that was not noted."""
        columns = self.dialect.columns(self.connection, "mlinfer_epochs") or {}
        found = self._execute(_COUNTED, self._key) if "partitions" in columns else []
        return (found[0][0] or 0) if found else 0

    def _miss_none(self, wanted: int, found: int) -> None:
        """Raise ChangedError if some of the progress is gone: its partitions would begin again beside what they delivered."""
        if found < wanted:
            name, output = self._key
            msg = (
                f"progress of pipeline {name!r}, output {output!r} in {self.dialect.place}: wanted {wanted} rows of mlinfer_progress, "
                f"found {found}: without the others their records would be delivered again; "
                "restore the database from a backup, or run with from_start=True to write everything anew"
            )
            raise ChangedError(msg)

    def _epoch(self) -> int | None:
        locking = "" if self.scope.read_only else self.dialect.locking
        found = self._execute(_EPOCH_OF + locking, self._key)
        return found[0][0] if found else None

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self.dialect.execute(self.connection, statement, values)

    def _verify(self, key: tuple[str, str], partition: str, facts: tuple[object, ...], checksum: str) -> None:
        version = facts[-1]
        where = f"progress of pipeline {key[0]!r}, partition {partition!r} in {self.dialect.place}"
        if isinstance(version, int) and version > FORMAT:
            msg = f"{where}: wanted format {FORMAT} or older, found {version}: a newer mlinfer wrote it; upgrade mlinfer: pip install --upgrade mlinfer"
            raise ChangedError(msg)
        if checksum != _checksum(key, partition, facts):
            msg = (
                f"{where}: wanted what mlinfer wrote, found something else: it was changed by hand or is damaged; "
                "restore the database from a backup, or run with from_start=True to write everything anew"
            )
            raise ChangedError(msg)


def _checksum(key: tuple[str, str], partition: str, facts: tuple[object, ...]) -> str:
    text = json.dumps([*key, partition, *facts], default=lambda state: bytes(state).hex())
    return hashlib.sha256(text.encode()).hexdigest()
