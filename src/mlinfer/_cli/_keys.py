"""`mlinfer keys`: keys for those who may ask a server."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from mlinfer._cli._loading import debug


def add(verbs: Any) -> None:
    """Add the verb."""
    keys = verbs.add_parser(
        "keys", help="keys for those who may ask a server", description="Keys for a server."
    )
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    text = "make a key: print it once, with the line for the file of keys"
    parser = actions.add_parser("new", help=text, description=text)
    parser.set_defaults(act=new)
    parser.add_argument("name", metavar="NAME", help="whose key it is")
    debug(parser)


def new(asked: argparse.Namespace) -> None:
    """Print a fresh key, and what the file needs to know of it."""
    from mlinfer._online import new_key

    key, line = new_key(asked.name)
    print("The key, for its holder; it is shown this once and stored nowhere:", file=sys.stderr)
    print(key)
    print(
        "The line for the file of keys; `expires = 2027-01-01` may stand beside the digest:", file=sys.stderr
    )
    print(line)
