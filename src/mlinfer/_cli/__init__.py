"""The command line: `mlinfer VERB ...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import mlinfer
from mlinfer._cli._ending import EXIT_CODES, ending, printing

VERBS = {
    "demo": "_demo", "train": "_train", "run": "_pipelines", "check": "_pipelines", "explain": "_pipelines",
    "preview": "_pipelines", "serve": "_serve", "keys": "_keys", "state": "_state", "rejects": "_rejects",
    "inspect": "_inspect", "plugins": "_plugins",
}  # fmt: skip
"""Each verb's module: one that is not asked for is not imported, or a server would start later for it."""
DESCRIPTION = "Run inference: records from a data source, a model in a host, answers to a data destination."


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return its exit code; without arguments, the program's own are taken."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: as good as a place where nobody looks
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until the end
    given = sys.argv[1:] if arguments is None else arguments
    asked = _parser(given[0] if given else "").parse_args(given)
    with ending(debug=asked.debug) as end:
        asked.act(asked)
        with printing():
            sys.stdout.flush()  # a reader that is gone shows here, not when the interpreter ends
    return end.code


def _parser(verb: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mlinfer",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlinfer {mlinfer.__version__}")
    parser.set_defaults(debug=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    modules = [VERBS[verb]] if verb in VERBS else dict.fromkeys(VERBS.values())
    for module in modules:
        import_module(f"mlinfer._cli.{module}").add(verbs)
    return parser
