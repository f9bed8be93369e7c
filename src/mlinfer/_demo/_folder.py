"""The demo's folder: the shipped flights, the model, the pipeline and its database."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlinfer import ConfigError, durable
from mlinfer._demo._model import shipped, train
from mlinfer.lifecycle import Training

FIRST = ("2013-09.parquet", "2013-10.parquet")
SECOND = "2013-11.parquet"
LAST = "2013-12.parquet"
MARK = "# Written by `mlinfer demo`."

PIPELINE = """\
{mark} Run it from where the demo ran:
#   mlinfer run {folder}/pipeline.toml

name = "flight-delays"
keep = ["flight_id", "carrier", "dest"]  # travel to the database untouched
require = "exactly-once"                 # refused before the run if it cannot be kept

[source]
type = "parquet"
path = "{folder}/input/*.parquet"
id_column = "flight_id"

[host]
type = "sklearn"
model = "{folder}/late-flights.mlinfer"

[destination]
type = "sql"
url = "sqlite:///{results}/scores.db"
table = "scores"

[rejects]                                # cancelled flights have no departure delay
type = "sql"
url = "sqlite:///{results}/scores.db"
table = "rejects"

[budget]
ratio = 0.1                              # stop if more than a tenth is rejected
"""


@dataclass(frozen=True)
class Folder:
    """Where the demo works; every step may be done again after the demo was interrupted."""

    path: Path

    @property
    def pipeline(self) -> Path:
        """The pipeline in TOML."""
        return self.path / "pipeline.toml"

    @property
    def model(self) -> Path:
        """The saved model."""
        return self.path / "late-flights.mlinfer"

    @property
    def database(self) -> Path:
        """Scores and rejects."""
        return self.path / "scores.db"

    def prepare(self, *, force: bool) -> bool:
        """Make the folder, or take up an earlier demo's; says whether there was one.

        Raises ConfigError: the folder holds something else, or a character that TOML and URLs would take amiss.
        """
        if not str(self.path).isprintable() or set(str(self.path)) & set('"\\?#*[]'):
            msg = f"{str(self.path)!r}: wanted a folder name without quotes, backslashes, ?, #, * and brackets; choose another --folder"
            raise ConfigError(msg)
        ours = self.pipeline.is_file() and self.pipeline.read_text(encoding="utf-8").startswith(MARK)
        if self.path.exists() and not ours and (not self.path.is_dir() or any(self.path.iterdir())):
            msg = f"{self.path}: wanted a new folder, or that of an earlier demo, found something else; choose another --folder"
            raise ConfigError(msg)
        if ours and force:
            self._clear()
        for folder in (self.path, self.path / "input", self.path / "next"):
            durable.make_folder(folder)
        durable.replace(self.pipeline, self._described(self.path).encode())
        for name in FIRST:
            self.deliver(name)
        if not (self.path / "input" / LAST).exists():
            self._copy(LAST, self.path / "next" / LAST)
        return ours and not force

    def deliver(self, name: str) -> None:
        """Put a month into the input, whole, as every producer of files should."""
        self._copy(name, self.path / "input" / name)

    def make_model(self) -> Training | None:
        """Train the model; returns what was found, None if it was there."""
        return None if self.model.exists() else train(self.model)

    def another(self) -> Path:
        """The same pipeline with a database of its own and small batches, which give time to kill it."""
        results = self.path / "kill-test"
        shutil.rmtree(results, ignore_errors=True)
        durable.make_folder(results)
        text = self._described(results) + "\n[batching]\nmax_records = 4\n"
        durable.replace(results / "pipeline.toml", text.encode())
        return results

    def _described(self, results: Path) -> str:
        return PIPELINE.format(mark=MARK, folder=self.path.as_posix(), results=results.as_posix())

    def _copy(self, name: str, target: Path) -> None:
        if not target.exists():
            with shipped(name) as path:
                durable.replace(target, path.read_bytes())

    def _clear(self) -> None:
        """Remove what the demo has made and nothing else."""
        for name in ("input", "next", "late-flights.mlinfer", "kill-test"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in [*self.path.glob("scores.db*"), self.pipeline]:
            durable.remove(path)
