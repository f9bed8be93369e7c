"""`mlinfer demo`: flights of 2013, from files through a model into a database."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mlinfer._cli._loading import debug


def add(verbs: Any) -> None:
    """Add the verb."""
    text = "see it work: real flights through a model into SQLite"
    parser = verbs.add_parser("demo", help=text, description=text)
    parser.add_argument(
        "--folder", type=Path, default=Path("mlinfer-demo"), help="where to work (mlinfer-demo)"
    )
    parser.add_argument("--force", action="store_true", help="begin anew in a folder of an earlier demo")
    debug(parser)
    parser.set_defaults(act=run)


def run(asked: argparse.Namespace) -> None:
    """Run the demo."""
    from mlinfer._demo import demo

    demo(asked.folder, force=asked.force)
