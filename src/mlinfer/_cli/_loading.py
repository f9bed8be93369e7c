"""What the verbs share: which pipeline is meant, and where its outputs lie."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlinfer._config import load_pipeline, name_of
from mlinfer._engine import Outputs, open_model
from mlinfer._errors import ConfigError
from mlinfer._pipeline import InferencePipeline
from mlinfer._progress import Progress
from mlinfer._protocols import Scope, SideTables


def verb(verbs: Any, name: str, act: Any, text: str) -> argparse.ArgumentParser:
    """Add a verb that works on a pipeline."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(act=act)
    parser.add_argument(
        "--allow", metavar="MODULE:ATTR", action="append", default=[],
        help="code of yours that the file may name; modules are also looked for in the current folder",
    )  # fmt: skip
    debug(parser)
    return parser


def debug(parser: argparse.ArgumentParser) -> None:
    """Add the option that every verb has."""
    parser.add_argument("--debug", action="store_true", help="show where an error came from")


def pipeline_of(asked: argparse.Namespace, path: Path) -> InferencePipeline:
    """Load the pipeline of a file. Raises ConfigError."""
    if asked.allow:
        folder = str(Path.cwd())
        if folder not in sys.path:
            sys.path.append(folder)  # last, so that nothing in it hides an installed module
    return load_pipeline(path, asked.allow)


def file_named(text: str) -> Path:
    """The file that is meant by a path, or by the name of a pipeline in a file of the current folder.

    Raises ConfigError: there is none, or there are several.
    """
    if text.endswith(".toml"):
        return Path(text)
    names = {path: _name(path) for path in sorted(Path().glob("*.toml"))}
    found = [path for path, name in names.items() if name == text]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{name} ({path})" for path, name in names.items() if name) or "none"
    what = " and ".join(map(str, found)) if found else f"none; the pipelines here: {known}"
    msg = f"wanted one pipeline called {text!r} in the .toml files of {Path.cwd()}, found {what}; go to its folder, or name the file itself"
    raise ConfigError(msg)


def _name(path: Path) -> str | None:
    try:
        return name_of(path)
    except ConfigError:
        return None  # some other program's file; if it is the one that is meant, its path says so


@contextmanager
def opened(pipeline: InferencePipeline, *, fresh: bool) -> Iterator[tuple[Outputs, Progress]]:
    """All outputs of a pipeline: to look at, creating nothing, or with `fresh` to begin anew."""
    job = pipeline.job
    with open_model(job.host) as model:
        layout = job.lay_out(model.signature)
        sides = model.side_schemas() if isinstance(model, SideTables) else {}
    scope = Scope(job.name or "", run=secrets.token_hex(8), read_only=not fresh, fresh=fresh)
    with Outputs(job, scope, {}) as outputs:
        yield outputs, outputs.open(layout.output, sides)
