"""Recipes that travel: copies made by pickling, as an engine would ship them to another process."""

from __future__ import annotations

import pickle
from typing import Any


def pickled(recipe: Any) -> bytes | None:
    """A recipe as bytes; None if it lives in this process only (data in hand, a lambda, an open thing)."""
    try:
        return pickle.dumps(recipe)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None


def unpickled(text: bytes) -> Any:
    """What `pickled` made bytes of, in this very process or in a child of it."""
    return pickle.loads(text)  # noqa: S301 - only what `pickled` gave, by pipe or in memory, comes here


def another(recipe: Any) -> Any:
    """A fresh copy by pickling, as after a crash; the recipe itself if it lives in this process only."""
    text = pickled(recipe)
    return recipe if text is None else unpickled(text)
