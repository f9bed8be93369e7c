"""How often the intervals of `mlinfer.train` hold the truth, and how often a model that is no better passes for better.

    python scripts/simulate_intervals.py --runs 2000 --seed 1

Records are drawn whose law is known, given to the functions that training measures with, and the interval is compared with
the value that a million records have. Prints the tables of docs/reliability.md; some ten minutes.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from mlinfer.lifecycle._intervals import Draws
from mlinfer.lifecycle._metrics import METRICS, Answers, scored

OF_CLASSES = ("roc_auc", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "log_loss", "brier")
OF_THREE = ("roc_auc", "accuracy", "balanced_accuracy", "log_loss")
OF_NUMBERS = ("r2", "mae", "rmse")
MANY = 1_000_000
PER_GROUP = 10

Dice = np.random.Generator


@dataclass(frozen=True)
class Setting:
    """What is drawn (answers for n records, each with what its group adds), and how records count."""

    name: str
    answers: Callable[[Dice, np.ndarray], Answers]
    metrics: tuple[str, ...]
    weights: float = 0.0  # the spread of their logarithm
    group_effect: float = 0.0

    def drawn(self, dice: Dice, count: int) -> tuple[Answers, Draws]:
        """Answers and draws for so many records, or groups of 1 to some 20 records."""
        groups = (
            np.repeat(np.arange(count), dice.poisson(PER_GROUP - 1, count) + 1) if self.group_effect else None
        )
        effect = np.zeros(count) if groups is None else dice.normal(0, self.group_effect, count)[groups]
        answers = self.answers(dice, effect)
        weights = dice.lognormal(0, self.weights, len(effect)) if self.weights else np.ones(len(effect))
        if self.weights:  # those that the model errs about count more
            far = np.abs(answers.truth.astype(float) - answers.predicted)
            weights *= 1 + (far > 0.5)
        return answers, Draws(weights, groups)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def binary(positive: np.ndarray, chance: np.ndarray) -> Answers:
    beside = np.column_stack([1 - chance, chance])
    return Answers(positive, chance > 0.5, np.array([False, True]), beside, chance)


def two_classes(dice: Dice, effect: np.ndarray, share: float) -> Answers:
    """Scores of two normal distributions, 1.5 apart, and the chances that follow; a group shifts what the model believes."""
    positive = dice.random(len(effect)) < share
    score = dice.normal(1.5 * positive, 1)
    return binary(positive, logistic(math.log(share / (1 - share)) + 1.5 * score - 1.125 + effect))


def three_classes(dice: Dice, effect: np.ndarray) -> Answers:
    shares = np.array([0.6, 0.3, 0.1])
    kind = dice.choice(3, len(effect), p=shares)
    score = 1.5 * dice.normal(1.5 * (kind[:, None] == np.arange(3)), 1) + np.log(shares)
    chances = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    return Answers(kind, chances.argmax(1), np.arange(3), chances)


def numbers(dice: Dice, effect: np.ndarray, law: str) -> Answers:
    predicted = dice.normal(0, 1.5, len(effect))
    return Answers(predicted + errors(dice, len(effect), law) + effect, predicted)


def errors(dice: Dice, count: int, law: str) -> np.ndarray:
    if law == "normal":
        return dice.normal(0, 1, count)
    if law == "exponential":
        return dice.exponential(1, count) - 1
    return dice.standard_t(5, count) / math.sqrt(5 / 3)


SETTINGS = (
    Setting("two classes, half and half", partial(two_classes, share=0.5), OF_CLASSES),
    Setting("two classes, one in ten", partial(two_classes, share=0.1), OF_CLASSES),
    Setting("three classes, 6 : 3 : 1", three_classes, OF_THREE),
    Setting("normal errors", partial(numbers, law="normal"), OF_NUMBERS),
    Setting("exponential errors", partial(numbers, law="exponential"), OF_NUMBERS),
    Setting("errors of Student's t, 5", partial(numbers, law="t"), OF_NUMBERS),
    Setting("weights, two classes", partial(two_classes, share=0.3), OF_CLASSES, weights=0.5),
    Setting("weights, normal errors", partial(numbers, law="normal"), OF_NUMBERS, weights=0.5),
    Setting("a few large weights, two classes", partial(two_classes, share=0.3), OF_CLASSES, weights=1.5),
    Setting("a few large weights, normal errors", partial(numbers, law="normal"), OF_NUMBERS, weights=1.5),
)
GROUPED = (
    Setting("two classes", partial(two_classes, share=0.3), OF_CLASSES, group_effect=1.0),
    Setting("normal errors", partial(numbers, law="normal"), OF_NUMBERS, group_effect=0.7),
)


def coverage(setting: Setting, count: int, runs: int, seed: int) -> dict[str, tuple[float, float]]:
    """For each metric how often its interval holds the truth, and how often a bar set at the truth is passed.

    Both of the intervals that there are; an undefined one passes no bar.
    """
    metrics = [METRICS[name] for name in setting.metrics]
    answers, draws = setting.drawn(
        np.random.default_rng(0), MANY // (PER_GROUP if setting.group_effect else 1)
    )
    truth = np.array([metric.made(answers)(draws.weights) for metric in metrics])
    ends = np.empty((runs, len(metrics), 2))
    for run in range(runs):
        answers, draws = setting.drawn(np.random.default_rng([seed, run]), count)
        ends[run] = [(score.low, score.high) for score in scored(metrics, answers, draws)]
    there = np.isfinite(ends[:, :, 0]).sum(0)
    above, below = (ends[:, :, 0] > truth).sum(0), (ends[:, :, 1] < truth).sum(0)
    passed = np.where([metric.more_is_better for metric in metrics], above, below)
    return {
        name: (1 - (above + below)[at] / there[at], passed[at] / there[at])
        for at, name in enumerate(setting.metrics)
    }


@dataclass(frozen=True)
class Null:
    """A model and a baseline that are equally good by this metric, in the long run."""

    name: str
    metric: str
    both: Callable[[Dice, int], tuple[Answers, Answers]]


def noise(dice: Dice, count: int, share: float) -> tuple[Answers, Answers]:
    positive = dice.random(count) < share
    return binary(positive, dice.random(count)), binary(positive, np.full(count, share))


def flips(dice: Dice, count: int, rate: float) -> tuple[Answers, Answers]:
    """The model says yes for a few records of which half are; the baseline says no, and three in ten of the others are."""
    differs = dice.random(count) < rate
    positive = dice.random(count) < np.where(differs, 0.5, 0.3)
    return binary(positive, np.where(differs, 0.9, 0.1)), binary(positive, np.full(count, 0.3))


def doubled(dice: Dice, count: int, law: str) -> tuple[Answers, Answers]:
    """The model says twice what it should, the baseline nothing: both are off as far."""
    known = dice.normal(0, 1, count)
    truth = known + errors(dice, count, law)
    return Answers(truth, 2 * known), Answers(truth, np.zeros(count))


def overconfident(dice: Dice, count: int, sharper: float) -> tuple[Answers, Answers]:
    positive = dice.random(count) < 0.5
    score = dice.normal(positive, 1) - 0.5
    return binary(positive, logistic(sharper * score)), binary(positive, np.full(count, 0.5))


def as_bad(metric: str) -> float:
    """How much too sure a model must be to be no better than one that always says a half."""
    made, low, high = METRICS[metric].made, 1.0, 12.0
    weights = np.ones(MANY)
    while high - low > 1e-3:
        middle = (low + high) / 2
        model, baseline = overconfident(np.random.default_rng(0), len(weights), middle)
        better = made(model)(weights) < made(baseline)(weights)
        low, high = (middle, high) if better else (low, middle)
    return low


def nulls() -> Iterator[Null]:
    for share in (0.5, 0.1):
        for metric in ("roc_auc", "balanced_accuracy"):
            yield Null(f"scores are noise, {share:g} positive", metric, partial(noise, share=share))
    for rate in (0.02, 0.1, 0.4):
        yield Null(f"another answer for {rate:.0%} of the records", "accuracy", partial(flips, rate=rate))
    for metric in ("log_loss", "brier"):
        yield Null("too sure of itself", metric, partial(overconfident, sharper=as_bad(metric)))
    for law in ("normal", "exponential", "t"):
        for metric in ("r2", "rmse") if law == "exponential" else OF_NUMBERS:
            yield Null(f"predictions doubled, {law} errors", metric, partial(doubled, law=law))


def taken_for_better(null: Null, count: int, runs: int, seed: int) -> float:
    """How often the model passes: the whole interval of the difference lies above 0."""
    found = 0
    for run in range(runs):
        model, baseline = null.both(np.random.default_rng([seed, run]), count)
        score = scored([METRICS[null.metric]], model, Draws(np.ones(count)), baseline=baseline)[0]
        found += score.better_low is not None and score.better_low > 0
    return found / runs


def cell(found: dict[str, tuple[float, float]]) -> str:
    """The metrics that are covered least and most, and how often the bar of one was passed at most."""
    held = sorted((held, metric) for metric, (held, _) in found.items())
    passed = max(passed for _, passed in found.values())
    return f"{100 * held[0][0]:.1f} (`{held[0][1]}`) to {100 * held[-1][0]:.1f}; {100 * passed:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for settings, counts, of in ((SETTINGS, (30, 100, 1000), "records"), (GROUPED, (10, 30, 100), "groups")):
        print(f"\n| {of} |", *(f"{count} |" for count in counts))
        print("|---|", *("---|" for _ in counts), sep="")
        for setting in settings:
            found = (coverage(setting, count, asked.runs, asked.seed) for count in counts)
            print(f"| {setting.name} |", *map(cell, found), flush=True)
    print("\n| no better | metric | 30 | 100 | 1000 |\n|---|---|---|---|---|")
    for null in nulls():
        cells = (
            f"{100 * taken_for_better(null, count, asked.runs, asked.seed):.1f} |"
            for count in (30, 100, 1000)
        )
        print(f"| {null.name} | `{null.metric}` |", *cells, flush=True)


if __name__ == "__main__":
    main()
