"""The command line: `mlinfer VERB ...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import mlinfer
from mlinfer._cli import _demo, _inspect, _pipelines, _plugins, _rejects, _serve, _state, _train
from mlinfer._cli._ending import EXIT_CODES, ending, printing

DESCRIPTION = "Run inference: records from a data source, a model in a host, answers to a data destination."


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return its exit code; without arguments, the program's own are taken."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: as good as a place where nobody looks
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until the end
    asked = _parser().parse_args(arguments)
    with ending(debug=asked.debug) as end:
        asked.act(asked)
        with printing():
            sys.stdout.flush()  # a reader that is gone shows here, not when the interpreter ends
    return end.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mlinfer",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mlinfer {mlinfer.__version__}")
    parser.set_defaults(debug=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in (_demo, _train, _pipelines, _serve, _state, _rejects, _inspect, _plugins):
        module.add(verbs)
    return parser
