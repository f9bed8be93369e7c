"""`mlinfer train`: fit a model, measure it on records that it has not seen, and save it if it holds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlinfer._cli._ending import printing
from mlinfer._cli._loading import verb
from mlinfer._config import Definition, read_file
from mlinfer._errors import ConfigError, ConfirmationError
from mlinfer._options import convert, make, refuse_unknown
from mlinfer._text import shown

if TYPE_CHECKING:
    from mlinfer.lifecycle import Training

PLAIN = {
    "target": str,
    "to": str,
    "features": list[str],
    "metrics": list[str],
    "accept": Mapping[str, float],
    "groups": str,
    "sample_weight": str,
    "perfect": list[str],
    "seed": int,
    "trusted": list[str],
}
"""Keys that go to `mlinfer.train` as they are."""

NEEDED = ("source", "estimator", "split", "target", "to")


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = verb(
        verbs, "train", act, "fit a model, confirm it on records that it has not seen, and save its package"
    )
    parser.add_argument(
        "file", type=Path, metavar="train.toml", help="what to train, in TOML; see docs/how-to/train.md"
    )


def act(asked: argparse.Namespace) -> None:
    """Train, and print what was found, also when it does not hold."""
    if asked.allow and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # last, so that nothing in it hides an installed module
    try:
        found = trained(asked.file, asked.allow)
    except ConfirmationError as error:
        with printing():
            print(error.training)
        raise
    with printing():
        print(f"{found}\nsaved as    {found.path}")


def trained(path: Path, allow: list[str]) -> Training:
    """Do what a file describes. Raises ConfigError: it is no such description; and what `mlinfer.train` raises."""
    from mlinfer.lifecycle import estimator, train

    file = Definition(read_file(path, "what to train"), path, frozenset(allow))
    refuse_unknown(file.found, list(dict.fromkeys([*PLAIN, *NEEDED])), str(path))
    missing = [name for name in NEEDED if name not in file.found]
    if missing:
        msg = f"{path}: wanted {', '.join(NEEDED)}, found no {', no '.join(missing)}"
        raise ConfigError(msg)
    arguments = {
        name: convert(file.found[name], kind, f"{path}: {name}", file.imported)
        for name, kind in PLAIN.items()
        if name in file.found
    }
    source = file.part("source", file.table("source"), file.where("source"))
    model = estimator(file.found["estimator"], file.where("estimator"), file.imported)
    return train(source, model, split=_split(file), **arguments)


def _split(file: Definition) -> Any:
    from mlinfer.lifecycle import ByGroup, ByKey, ByTime

    kinds = {"key": ByKey, "group": ByGroup, "time": ByTime}
    options = file.table("split")
    by = options.pop("by", None)
    if by not in kinds:
        msg = f'{file.where("split")}: wanted by = "key", "group" or "time", found {shown(by)}'
        raise ConfigError(msg)
    return make(kinds[by], options, f"{file.where('split')} {by}", file.imported)
