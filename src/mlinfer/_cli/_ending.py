"""How a command ends: one line about what went wrong, and an exit code that scripts can go by."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from mlinfer._cli._spelling import spelled
from mlinfer._engine import Sent, Stop, gave_up
from mlinfer._errors import (
    ChangedError,
    ComponentError,
    ConfigError,
    ConfirmationError,
    FencedError,
    MlinferError,
    RejectsError,
)
from mlinfer._starting import after_the_end, over
from mlinfer._text import in_words, plain, said

EXIT_CODES = """\
exit codes:
  0    done, or drained after SIGTERM or Ctrl-C
  2    the definition or the command line is wrong; or stored progress
       belongs to something else
  3    more records are bad than the budget allows
  4    a part failed
  5    another run of the same pipeline has taken over
  6    a trained model does not hold on unseen records; nothing was written
  130  stopped at once by a second Ctrl-C
"""
CODES: list[tuple[type[BaseException], int]] = [
    (ConfigError, 2),
    (ChangedError, 2),
    (RejectsError, 3),
    (FencedError, 5),
    (ConfirmationError, 6),
    (KeyboardInterrupt, 130),
    (Exception, 4),
]
READER_GONE = 141  # what a shell reports for a program that SIGPIPE ended
LONGEST = 2000


@dataclass
class End:
    """The exit code, once it is known."""

    code: int = 0


@contextmanager
def ending(*, debug: bool) -> Iterator[End]:
    """Turn what a command raises into a line on standard error and an exit code; with `debug`, show where, too."""
    end = End()
    try:
        yield end
    except BrokenPipeError as error:
        end.code = _reader_gone() or _told(error, debug=debug)
    except SystemExit as error:  # a part's: no verb ends so
        end.code = _told(gave_up(error), debug=debug)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the program ends here, whatever it is
        end.code = _told(error, debug=debug)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Let SIGTERM and SIGINT ask for a drain while the block runs; a second one ends the program at once.

    At once is safe: it leaves what a crash would leave, and the next run goes on from the last commit.
    """
    stop = Stop()
    signals: list[int] = []
    sent = Sent()

    def handle(number: int, _: FrameType | None) -> None:
        if not sent.counts():
            return
        signals.append(number)
        if len(signals) > 1:
            os.write(2, b"\nmlinfer: error: stopped at once; the next run goes on from the last commit\n")
            os._exit(128 + number)  # no waiting for a model that does not return
        # In a thread of its own: the one that was interrupted may hold the lock inside `stop`.
        threading.Thread(target=stop.ask, args=(signal.Signals(number).name,), daemon=True).start()
        os.write(2, b"\nmlinfer: finishing what is in flight; once more stops at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, after_the_end(handler))


@contextmanager
def printing() -> Iterator[None]:
    """Raises ComponentError for what is printed in the block: the disk behind standard output is full, or the like."""
    try:
        yield
    except BrokenPipeError:  # whose end is not an error; raised again
        raise
    except OSError as error:
        msg = f"standard output: wanted to print, found {os.strerror(error.errno or 0)}; what was delivered is safe"
        raise ComponentError(msg) from error


def _told(error: BaseException, *, debug: bool) -> int:
    over()
    code = next(code for kind, code in CODES if isinstance(error, kind))
    with suppress(OSError):  # standard error may be full, too: the exit code says it all
        if debug:
            traceback.print_exception(error)
        print(f"mlinfer: error: {_sentence(error)}", file=sys.stderr)
        if code == 4 and not debug:  # noqa: PLR2004 - a part failed: whoever wrote it will want to know where
            print("mlinfer: the same command with --debug shows where", file=sys.stderr)
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, ConfirmationError):  # its table is printed where tables belong
        return plain(spelled(error.message), LONGEST)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; what was committed is safe, the next run goes on from there"
    if not isinstance(error, MlinferError):
        return plain(in_words(error), LONGEST)
    text = plain(spelled(said(error)) or type(error).__name__, LONGEST)
    # what you wrote is wrong: the message says it all
    if isinstance(error, ConfigError) or error.__cause__ is None:
        return text
    cause = plain(said(error.__cause__))
    return text if cause in text else f"{text} ({type(error.__cause__).__name__}: {cause})"


def _reader_gone() -> int:
    """Whether it was our own standard output that nobody reads any more, as in `| head`."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return 0
    # what is still buffered goes nowhere when the interpreter ends
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return READER_GONE
