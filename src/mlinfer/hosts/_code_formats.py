"""Formats that are code: loading such a file runs whatever its author wrote. The only module that may touch them."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from typing import Any

from mlinfer import ConfigError

SUFFIXES = {".pkl": "pickle", ".pickle": "pickle", ".joblib": "joblib"}
"""The endings of files in such formats; nothing else decides how a file is read."""

log = logging.getLogger("mlinfer.security")

DAMAGE = (
    pickle.UnpicklingError, OSError, EOFError, RuntimeError, ImportError, AttributeError, LookupError, TypeError,
    ValueError,
)  # fmt: skip


def load(content: bytes, suffix: str, where: str) -> Any:
    """The object in a file's bytes, whose digest the caller has compared. Raises ConfigError: it cannot be loaded.

    Says so loudly in the log `mlinfer.security`.
    """
    how = SUFFIXES[suffix]
    log.warning("SECURITY: %s is loaded as %s, which runs any code that its author put into it", where, how)
    try:
        if how == "pickle":
            return pickle.loads(content)  # noqa: S301 - asked for twice: by format and by digest
        import joblib

        return joblib.load(io.BytesIO(content))
    except DAMAGE as error:
        msg = f"{where}: wanted a {how} file, found something else or the wrong libraries ({type(error).__name__}: {error})"
        raise ConfigError(msg) from error


def digest(model: Any) -> str:
    """A digest (hex) of an object in this process; it may differ between processes though the object is the same.

    Raises ConfigError: the object cannot be written down at all.
    """
    try:
        return hashlib.sha256(pickle.dumps(model, protocol=5)).hexdigest()
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        msg = (
            f"{type(model).__name__}: wanted an estimator whose content can be told from another's, found something that "
            f"cannot be stored ({error}); use named functions instead of lambdas"
        )
        raise ConfigError(msg) from error
