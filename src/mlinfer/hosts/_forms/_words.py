"""Linear models over the words of a text: counted, weighted and multiplied without a sparse matrix in between."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np

SKLEARN_WORDS = r"(?u)\b\w\w+\b"
"""The only pattern there is a form for: one from a package could be made to search for ever."""
_find = re.compile(r"\w\w+").findall  # finds the same words, in less time
NORMS = {"l1", "l2", None}
STRANGE = (
    "",
    "a",
    "İstanbul ǅ ß",
    "e\u0301te\u0301 ünïcode",
    "x_1 2nd 33",
    "日本語 テキスト",
    "tab\tand\nline",
    "don't",
)


@dataclass(frozen=True)
class Bag:
    """How a text becomes the weights of its words, in scikit-learn's own order.

    `terms`: words, and runs of words with a blank between them where `runs`, (shortest, longest), is not (1, 1). `stop`:
    words that are skipped. `binary`: a word counts once; `sublinear`: as 1 + log of its count; `norm`: l1, l2 or None.
    """

    place: int
    terms: tuple[str, ...]
    lowercase: bool = True
    runs: tuple[int, int] = (1, 1)
    stop: frozenset[str] = frozenset()
    binary: bool = False
    sublinear: bool = False
    norm: str | None = None

    def words(self, texts: Sequence[str]) -> list[list[str]]:
        """What of each text is looked up among the terms."""
        lowered = map(str.lower, texts) if self.lowercase else texts
        if not self.stop and self.runs == (1, 1):
            return list(map(_find, lowered))  # nothing of it runs in Python
        return [self._runs_of([word for word in _find(text) if word not in self.stop]) for text in lowered]

    def _runs_of(self, words: list[str]) -> list[str]:
        shortest, longest = self.runs
        return [
            " ".join(words[start : start + length])
            for length in range(shortest, longest + 1)
            for start in range(len(words) - length + 1)
        ]

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {**self.__dict__, "stop": sorted(self.stop)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Bag:
        """The bag that a package names. Raises KeyError, TypeError or ValueError: it names none."""
        shortest, longest = map(int, value["runs"])
        terms, stop = value["terms"], value["stop"]
        if (
            value["norm"] not in NORMS
            or not 1 <= shortest <= longest
            or not all(isinstance(t, str) for t in terms)
        ):
            msg = "another bag of words"
            raise ValueError(msg)
        flags = {name: bool(value[name]) for name in ("lowercase", "binary", "sublinear")}
        return cls(
            int(value["place"]),
            tuple(terms),
            runs=(shortest, longest),
            stop=frozenset(stop),
            norm=value["norm"],
            **flags,
        )


class Words:
    """`weights of the words @ weights of the model + bias`.

    `idf` (terms,) are the factors of the words; `weights` (terms, k); `bias` (k,).
    """

    name = "words counted into one product (numpy)"

    def __init__(self, bag: Bag, arrays: Mapping[str, np.ndarray]) -> None:
        self.bag, self.arrays = bag, dict(arrays)
        self._idf, self._bias = arrays["idf"], arrays["bias"]
        self._columns = [np.ascontiguousarray(column) for column in arrays["weights"].T]
        self._known = {term: place for place, term in enumerate(bag.terms)}
        if not len(self._known) == len(bag.terms) == len(self._idf) == len(arrays["weights"]) or len(
            self._bias
        ) != len(self._columns):
            msg = "shapes that do not fit"
            raise ValueError(msg)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n,) for one output, else (n, k)."""
        rows, terms, counts = self._counted(texts)
        values = np.ones(len(counts)) if self.bag.binary else counts.astype(np.float64)
        if self.bag.sublinear:
            values = np.log(values) + 1.0
        values *= self._idf[terms]
        size = len(texts)
        found = [np.bincount(rows, values * weights[terms], size) for weights in self._columns]
        if self.bag.norm is not None:
            norms = self._norms(rows, values, size)
            found = [column / norms for column in found]
        scores: np.ndarray = (found[0] if len(found) == 1 else np.column_stack(found)) + self._bias
        return scores

    def questions(self) -> list[str]:
        """Texts to compare two models on: of known words, repeated or not, of unknown ones and of none."""
        rng = np.random.default_rng(20131)
        lengths = rng.integers(0, 30, 1000)
        picked = [rng.choice(np.array(self.bag.terms, object), length) for length in lengths]
        texts = [" ".join([*words, *words[: len(words) // 3]]) for words in picked]
        return [
            *texts,
            *(text.upper() for text in texts[::7]),
            *(f"{t}, {s}! unseen" for t, s in zip(texts, STRANGE, strict=False)),
            *STRANGE,
        ]

    def _counted(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every known term of every text, by text and then by term: the text, the term, and how often it is there."""
        words = self.bag.words(texts)
        terms = np.fromiter(map(self._known.get, chain.from_iterable(words), repeat(-1)), np.int64)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        keys = np.repeat(np.arange(len(texts)) * len(self._known), lengths) + terms
        keys = keys[terms >= 0]
        keys.sort()
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.diff(first, append=len(keys))
        rows, terms = np.divmod(keys[first], len(self._known))
        return rows, terms, counts

    def _norms(self, rows: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
        norms = np.bincount(rows, np.abs(values) if self.bag.norm == "l1" else values * values, size)
        norms[norms == 0] = 1.0  # a text without known words stays at zero
        return norms if self.bag.norm == "l1" else np.sqrt(norms)
