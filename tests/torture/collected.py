"""Texts that others have collected because programs fell over them: the bodies of JSONTestSuite, and naughty strings.

They lie beside the checkout and not in it. Where they are missing the work goes on without them, and says so.
"""

import json
from itertools import cycle, repeat
from pathlib import Path

from torture.damage import GOOD, INFER_PATH, dump, framed, infer, tensors

CORPORA = Path(__file__).parents[3] / "shared" / "corpora"
EVERY = 5
"""So often one of them is sent: in 10,000 requests each of them, in every place."""


def over_http(dice):
    """Without end: the kind and the bytes of a request with a collected text; None where there are none."""
    bodies, strings = _bodies(), _strings()
    found = [
        *(("suite", framed(body, path)) for body in bodies for path in ("/predict", INFER_PATH)),
        *(("suite", framed(dump({**GOOD, "who": "HERE"}).replace(b'"HERE"', body))) for body in bodies),
        *(("naughty", framed(dump({**GOOD, "who": one}))) for one in strings),
        *(("naughty", infer(*_told(one))) for one in strings),
    ]
    return _shuffled(found, dice)


def elements(dice):
    """Without end: a collected text as an element of a tensor; None where there are none."""
    return _shuffled([*_bodies(), *map(_wire, _strings())], dice)


def note():
    """How many there are."""
    bodies, strings = len(_bodies()), len(_strings())
    if bodies and strings:
        return f"{bodies} bodies of JSONTestSuite and {strings} naughty strings among them"
    return (
        f"without JSONTestSuite and the naughty strings: wanted json/ and naughty_strings.json in {CORPORA}"
    )


def _told(one):
    asked, tail = tensors([{**GOOD, "who": one}], ["who"])
    asked["id"] = one
    return dump(asked), tail


def _shuffled(found, dice):
    dice.shuffle(found)
    return cycle(found) if found else repeat(None)


def _bodies():
    return [path.read_bytes() for path in sorted((CORPORA / "json").glob("*.json"))]


def _strings():
    path = CORPORA / "naughty_strings.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def _wire(text):
    return text.encode("utf-8", "surrogatepass")
