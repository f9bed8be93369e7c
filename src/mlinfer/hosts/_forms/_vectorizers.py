"""Reads scikit-learn's text vectorizers: what each makes of a field of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlinfer.hosts._forms._source import NotCompiled, Source
from mlinfer.hosts._forms._words import SKLEARN_WORDS, Bag

WIDE = {np.dtype(np.int64), np.dtype(np.float64)}
"""Counts of these types are exact; a narrower one begins again at nothing, or is rounded."""


@dataclass(frozen=True, eq=False)
class Weighted:
    """The columns that a vectorizer makes of a field: a bag of words, and a factor for each of its terms.

    `kept`: the places of the terms that are left of them, None for all.
    """

    bag: Bag
    idf: np.ndarray
    kept: np.ndarray | None = None

    def chosen(self, kept: np.ndarray) -> Weighted:
        """Some of its columns; the others still count for the length of a text."""
        places = np.flatnonzero(kept)
        return replace(self, kept=places if self.kept is None else self.kept[places])

    @property
    def width(self) -> int:
        """How many columns it is."""
        return len(self.bag.terms) if self.kept is None else len(self.kept)

    def spread(self, weights: np.ndarray) -> np.ndarray:
        """Weights of its columns as weights of all terms."""
        if self.kept is None:
            return weights
        found = np.zeros((len(self.bag.terms), weights.shape[1]))
        found[self.kept] = weights
        return found


def counts(vectorizer: Any, columns: Sequence[Any]) -> list[Weighted]:
    """The columns of a CountVectorizer. Raises NotCompiled: it finds its words in a way of its own."""
    if len(columns) != 1 or not isinstance(columns[0], Source) or not columns[0].is_text:
        msg = f"a {type(vectorizer).__name__} of anything but one field of texts has no compiled form"
        raise NotCompiled(msg)
    usual = {"analyzer": "word", "tokenizer": None, "preprocessor": None, "strip_accents": None,
             "token_pattern": SKLEARN_WORDS, "input": "content"}  # fmt: skip
    for name, value in usual.items():
        if (found := getattr(vectorizer, name)) != value:
            msg = f"a {type(vectorizer).__name__} with {name}={found!r} has no compiled form"
            raise NotCompiled(msg)
    if np.dtype(vectorizer.dtype) not in WIDE:
        msg = f"a {type(vectorizer).__name__} of {np.dtype(vectorizer.dtype)} has no compiled form"
        raise NotCompiled(msg)
    terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    bag = Bag(
        columns[0].place, tuple(terms), bool(vectorizer.lowercase), tuple(vectorizer.ngram_range),
        frozenset(vectorizer.get_stop_words() or ()), bool(vectorizer.binary),
    )  # fmt: skip
    return [Weighted(bag, np.ones(len(terms)))]


def tfidf(vectorizer: Any, columns: Sequence[Any]) -> list[Weighted]:
    """The columns of a TfidfVectorizer."""
    return weighted(vectorizer._tfidf, counts(vectorizer, columns))  # noqa: SLF001 - the half that weights


def weighted(transformer: Any, columns: Sequence[Any]) -> list[Weighted]:
    """The columns of a TfidfTransformer. Raises NotCompiled: it is given something else than counts."""
    if (
        len(columns) != 1
        or not isinstance(columns[0], Weighted)
        or columns[0].bag.norm
        or columns[0].bag.sublinear
        or columns[0].kept is not None
    ):
        msg = "a TfidfTransformer of anything but counted words has no compiled form"
        raise NotCompiled(msg)
    words = columns[0]
    idf = np.asarray(transformer.idf_, np.float64) if transformer.use_idf else words.idf
    return [
        Weighted(replace(words.bag, sublinear=bool(transformer.sublinear_tf), norm=transformer.norm), idf)
    ]
