"""What callers are told about requests that failed: our own words, and an id for what belongs in the log."""

from __future__ import annotations

import logging
import math
import secrets
from collections import Counter
from collections.abc import Mapping

from mlinfer._errors import MlinferError, RecordErrors
from mlinfer._online._wire import Refused
from mlinfer._rejects import STAGES
from mlinfer._text import count, plain

MOST_NAMED = 100
MOST_UNASKED = 3
"""Names that nobody asked for."""
OWN_WORDS = {
    "model_error": "the model could not answer this record",
    "timeout": "the model took too long for this record",
    "model_died": "the model died over this record",
    "out_of_memory": "there is not enough memory to answer this record",
}
"""Reasons whose message was written by whatever raised it, and may tell secrets; the log has it."""
LOG_REFUSES = "the log of predictions refuses the answer to this record"
LOGS_OWN = frozenset(STAGES["write"].kinds) - {"refused"}
"""Reasons of the log whose message is ours: a database says itself why it has refused a record."""
LONGEST_RETRY = 60
_logger = logging.getLogger("mlinfer")


def not_now(text: str, seconds: float = 1) -> Refused:
    """The refusal of what may be asked again so many seconds later."""
    return Refused(503, text, retry=min(max(1, math.ceil(seconds)), LONGEST_RETRY))


BUSY = not_now("too much to do; ask again in a moment")
ENDS = not_now("the server ends; ask again in a moment")
FULL = not_now("too many connections; ask again in a moment")
NOT_STORED = not_now("the answer could not be stored; ask again in a moment")
SHARE_TAKEN = not_now(
    "more than half of what is under way is yours, and the rest is kept for others; ask again in a moment"
)


def refusal(error: Exception) -> Refused:
    """The refusal for a request that failed with this error, which is logged where the caller must not see it."""
    if isinstance(error, RecordErrors):
        return _bad_records(error, OWN_WORDS, "the model failed for")
    if isinstance(error, Refused):
        return error
    return Refused(500, "the request failed; the log tells why", id=_logged(error))


def unstored(refused: Mapping[int, tuple[str, str]]) -> Refused:
    """The refusal for a request with records, by row, that the log will never take, so that asking again does not help."""
    kinds, messages = zip(*refused.values(), strict=True)
    foreign = dict.fromkeys({*kinds} - LOGS_OWN, LOG_REFUSES)
    return _bad_records(RecordErrors([*refused], kinds, messages), foreign, "the log refused")


def busy(seconds: float) -> Refused:
    """The refusal for a request that would have to wait so long."""
    return not_now("too much to do to answer in time; ask again later", seconds)


def _bad_records(errors: RecordErrors, own_words: Mapping[str, str], what: str) -> Refused:
    """The refusal that names them, for some kinds in our own words; `what` has happened then, for the log."""
    found = list(zip(errors.rows, errors.kinds, errors.messages, strict=True))
    named = [
        {"row": row, "kind": kind, "message": plain(own_words.get(kind, message))}
        for row, kind, message in found[:MOST_NAMED]
    ]
    text = count(len(found), "bad record")
    foreign = [(row, message) for row, kind, message in found if kind in own_words]
    if not foreign:
        return Refused(422, text, kinds=Counter(errors.kinds), records=named)
    number = secrets.token_hex(8)
    for row, message in foreign[:MOST_NAMED]:
        _logger.warning("error %s: %s record %d of a request: %s", number, what, row, plain(message, 1000))
    return Refused(422, text, kinds=Counter(errors.kinds), records=named, id=number)


def _logged(error: Exception) -> str:
    """Log a failure; what it is and where belongs there and not into the answer."""
    number = secrets.token_hex(8)
    kind = "failed" if isinstance(error, MlinferError) else "failed unexpectedly"
    _logger.error("error %s: a request %s", number, kind, exc_info=error)
    return number
