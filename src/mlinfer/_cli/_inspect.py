"""`mlinfer inspect`: what a model's package says of itself, after every digest was compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlinfer._cli._loading import debug


def add(verbs: Any) -> None:
    """Add the verb."""
    text = "show a model's package: its fields, its compiled form and the proof, its files"
    more = "Compares the digest of every file and loads no model."
    parser = verbs.add_parser("inspect", help=text, description=f"{text.capitalize()}. {more}")
    parser.add_argument("path", metavar="PACKAGE", help="a folder that mlinfer.save wrote")
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")
    debug(parser)
    parser.set_defaults(act=show)


def show(asked: argparse.Namespace) -> None:
    """Print the package."""
    from mlinfer.hosts import manifest

    facts = manifest(asked.path)
    print(json.dumps(facts, indent=1) if asked.json else "\n".join(_lines(facts)))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"model      {facts['model_id']}, version {facts['version']}"
    yield f"estimator  {facts['estimator']}"
    yield f"asked for  {', '.join(facts['method'])}"
    for role in ("inputs", "outputs"):
        for number, field in enumerate(facts["fields"][role]):
            required = "" if field["nullable"] else " (required)"
            yield f"{role if number == 0 else '':<10} {field['name']}: {field['type']}{required}"
    if facts.get("pictures"):
        yield f"pictures   {_pictures(facts['pictures'])}"
    compiled = facts.get("compiled") or {"form": None, "why": "saved by an older mlinfer; save it again"}
    if compiled["form"] is None:
        yield f"runs       scikit-learn: {compiled['why']}"
    else:
        proof = compiled["proof"]
        yield f"runs       {compiled['form']}, for {', '.join(compiled['methods'])}"
        ties = f" but for ties: {proof['ties']:,}" if proof["ties"] else ""
        yield f"proof      {proof['records']:,} records: labels identical{ties}"
        yield f"           largest difference {proof['difference']:.2g}, allowed {proof['within']:g}"
    if facts.get("training"):
        try:
            yield from [*_training(facts["training"])]
        except (KeyError, TypeError, ValueError, AttributeError):  # an origin says whatever its author wants
            yield "trained    not by mlinfer.train; --json shows what is said of it"
    for number, (name, digest) in enumerate(sorted(facts["files"].items())):
        yield f"{'files' if number == 0 else '':<10} {name}  sha256 {digest}"
    for number, (name, version) in enumerate(sorted(facts["libraries"].items())):
        yield f"{'made with' if number == 0 else '':<10} {name} {version}"


def _pictures(facts: Mapping[str, Any]) -> str:
    """How pictures become numbers."""
    width, height = facts["size"]
    numbers = f"(pixel - {facts['mean']}) / {facts['scale']}"
    ground = "" if facts["background"] is None else f", on {facts['background']}"
    return f"{width} x {height}, {facts['mode']}, {numbers}, {facts['layout']}{ground}"


def _training(facts: Mapping[str, Any]) -> Iterator[str]:
    """How the model was made and confirmed."""
    split, fit, confirmed = facts["split"], facts["fit"], facts["confirmed"]
    sides = ", ".join(f"{count:,} {side}" for side, count in split["records"].items())
    yield f"trained    for {facts['target']}, seed {fit['seed']}, on data of sha256 {facts['data']['sha256']}"
    yield f"split      by {split['by']} {split['column']}: {sides}"
    for number, score in enumerate(confirmed["scores"]):
        name = f"{score['metric']} {_number(score['value'])}"
        margin = f"{_number(score['low'])} to {_number(score['high'])}, {score['method']}"
        of = "" if score["group"] is None else f", {confirmed['groups']} {score['group']}"
        yield f"{'unseen' if number == 0 else '':<10} {name} ({confirmed['level']:.0%}: {margin}){of}"
    if facts["calibration"]:
        yield f"calibrated {facts['calibration']['records']:,} records: {facts['calibration']['scores']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
