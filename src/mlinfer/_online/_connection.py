"""One connection: requests in, answers out, in order. Lives on the server's event loop."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

from mlinfer._failpoints import failpoint
from mlinfer._online import _head
from mlinfer._online._awake import AT_ONCE
from mlinfer._online._refusals import BUSY, ENDS, FULL
from mlinfer._online._wire import MOST_HEADER_BYTES, OK, Refused, refusal, reply

if TYPE_CHECKING:
    from mlinfer._online._listener import Listener
    from mlinfer._online._routes import Order

MOST_AHEAD = 4 * MOST_HEADER_BYTES
"""Bytes of requests to come that are held while one is being answered."""
_logger = logging.getLogger("mlinfer")


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 with one client.

    It is idle, or a head or a body comes in, or its request is being answered, or it waits for the client to take an answer,
    or it parts; each has a deadline, which the listener looks at now and then (`expire`).
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._buffer: bytes | bytearray = b""
        self._order: Order | None = None  # while its body comes in or it is being answered
        self._held = 0  # bytes of the listener's room
        self._holder: str | None = None  # by which key
        self._last_head: tuple[bytes, Order] | None = None
        self._answering = self._unread = self._ended = self._stuck = False
        self._in_turn = False  # the next request in the buffer has its turn soon
        self.phase, self.until = "idle", 0.0
        self._since = 0.0  # of the phase
        self._hasty = False  # its latest request came at once behind the answer to the one before

    # --- what the event loop calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Wait for a request, if there is room for another connection."""
        self._transport = transport
        if self._listener.take_in(self):
            self._enter("idle")
        else:
            transport.write(refusal(FULL, close=True))
            transport.close()
            self.phase = "closed"

    def data_received(self, data: bytes) -> None:
        """Some bytes, of any number of requests."""
        if self.phase in {"parting", "closed"}:
            return
        if self._buffer:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data
        else:
            self._buffer = data
        if not self._answering and not self._stuck and not self._in_turn:
            self._go_on()
        elif len(self._buffer) > MOST_AHEAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client has said all; it may still listen."""
        self._ended = True
        if self.phase == "parting":
            self._close()
        elif not self._answering and not self._stuck and not self._in_turn:
            self._go_on()
        return not self._listener.secure  # TLS knows no half-closed connections

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was asked, nobody waits for it any more."""
        self.phase = "closed"
        self._free()
        self._listener.forget(self)
        if self._answering and self._order is not None:
            self._order.abandon()
        if error is not None:
            _logger.debug("a connection ended badly: %s", type(error).__name__)

    def pause_writing(self) -> None:
        """The client does not take its answers: it gets no further ones."""
        self._stuck = True
        self._enter("taking")
        self._listener.untaken(self, self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It does again."""
        self._stuck = False
        self._listener.untaken(self, 0)
        if self.phase == "taking":
            self._enter("idle")
            self._go_on()

    # --- requests --------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take one request out of the buffer; those behind it wait until the other connections have had their turn.

        A connection that always has a next one would else keep the loop for itself.
        """
        if self.phase in {"parting", "closed"}:
            return
        try:
            taken = (self._order is not None or self._take_head()) and self._take_body()
            if not taken and not self._transport.is_closing():
                self._transport.resume_reading()  # the rest of it may not have been read yet
        except Refused as refused:
            self._refuse(refused)

    def _take_head(self) -> bool:
        buffer = self._buffer
        if not buffer:
            if self._ended or self._listener.stopping:
                self._close()
            return False
        end = buffer.find(_head.END)
        if end < 0:
            self._unread = True
            _head.look(buffer)
            if self._ended:
                raise Refused(400, "wanted a whole HTTP/1.1 request")
            if self.phase != "head":
                self._enter("head")
            return False
        raw = bytes(buffer[: end + 4])
        self._unread = True
        last = self._last_head
        if last is not None and last[0] == raw and self._listener.routes.allows(last[1]):
            order = last[1].again()  # as clients do: the same head again
        else:
            failpoint("server.parse")
            order = self._listener.routes.order(_head.read(raw), self)
            self._last_head = (raw, order.again())  # without what the body will bring
        self._buffer = buffer[end + 4 :]
        self._order = order
        self._holder = order.key.name if order.key is not None else None
        self._held = self._listener.hold(order.length, self._holder)
        if len(self._buffer) < order.length and order.head.waits:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take_body(self) -> bool:
        order = self._order
        assert order is not None  # noqa: S101 - a body follows a head
        length, buffer = order.length, self._buffer
        if len(buffer) < length:
            if self._ended:
                raise Refused(400, f"wanted a body of {length:,} bytes, found {len(buffer):,}")
            if self.phase != "body":
                self._enter("body")
            return False
        body = bytes(buffer[:length])
        self._buffer = buffer[length:] if len(buffer) > length else b""
        self._unread = False
        self._answering = True
        self._enter("answer")
        if order.within is not None:
            self.until = min(self.until, self._since + order.within)
        order.begin(body)
        return True

    @property
    def alone(self) -> bool:
        """Whether this is the only connection."""
        return self._listener.connections == 1

    @property
    def silent_since(self) -> float:
        """When its client was heard or answered last, if it has no whole request under way now; else infinity."""
        return self._since if self.phase in {"idle", "head"} else math.inf

    # --- answers ---------------------------------------------------------------------------------------------------

    def answer(self, order: Order, data: bytes, kind: str, more: tuple[str, ...] = ()) -> None:
        """Send what the request asked for, and look at the next one.

        An answer that comes too late is nobody's: another request may be under way by now.
        """
        if self._answering and self._order is order:
            close, named = self._told(OK)
            text = reply(OK, data, close=close, kind=kind, more=more + named)
            self._send(text[: len(text) - len(data)] if order.head.bodiless else text, close=close)

    def refuse(self, order: Order, refused: Refused) -> None:
        """Send why there is no answer, and look at the next request."""
        if self._answering and self._order is order:
            self._listener.rejected(refused)
            close, named = self._told(refused.status)
            bodiless = order.head.bodiless
            self._send(refusal(refused, close=close, bodiless=bodiless, more=named), close=close)

    def _told(self, status: int) -> tuple[bool, tuple[str, ...]]:
        """The request is over: whether the connection is, too, and further headers of the answer."""
        order, listener = self._order, self._listener
        assert order is not None  # noqa: S101 - an answer follows a request
        failpoint("server.respond")
        self._answering, self._order = False, None
        self._free()
        close = not order.head.keeps or listener.stopping
        if self._transport.is_closing():  # reset just now: nobody hears the answer
            return close, ()
        listener.told(order.head.path, status)
        if listener.access is None:
            return close, ()
        return close, (f"X-Request-Id: {listener.access(order, status, listener.now() - self._since)}",)

    def _send(self, text: bytes, *, close: bool) -> None:
        # reset just now: connection_lost comes next, and others share the batch
        if self._transport.is_closing():
            return
        self._transport.write(text)
        if close:
            self._part()
        elif not self._stuck:
            self._enter("idle")
            if self._hasty and self.alone:  # the requests of several would else no longer meet
                self._listener.awake.stay()
            if self._buffer or self._ended:
                self._in_turn = True
                asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        self._in_turn = False
        if not self._answering and not self._stuck and not self._transport.is_closing():
            if len(self._buffer) <= MOST_AHEAD:
                self._transport.resume_reading()
            self._go_on()

    def _refuse(self, refused: Refused) -> None:
        """A request that cannot be read, or whose body nobody wants: the connection cannot go on behind it."""
        if self._transport.is_closing():
            return
        order = self._order
        bodiless = bytes(self._buffer[:5]) == b"HEAD " if order is None else order.head.method == "HEAD"
        self._free()
        self._order = None
        self._listener.told("other", refused.status)
        if self._listener.access is not None:
            self._listener.access(None, refused.status, 0.0)
        self._transport.write(refusal(refused, close=True, bodiless=bodiless))
        self._part()

    # --- the end ---------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The phase has taken too long."""
        if self.phase == "body":
            self._refuse(Refused(408, f"wanted the whole body within {self._listener.patience.body:g} s"))
        elif self.phase == "answer" and self._order is not None:
            order = self._order
            self.refuse(order, BUSY)
            order.abandon()
        elif self.phase == "parting":
            self._close()
        else:
            self.give_up()

    def give_up(self) -> None:
        """Part at once, and forget what is still to be sent."""
        self._transport.abort()

    def stop(self, *, now: bool) -> None:
        """The server ends: an idle connection closes; with `now` a request that still comes in is refused, too."""
        if self.phase == "idle" and not self._buffer:
            self._close()
        elif now and self.phase in {"head", "body"}:
            self._refuse(ENDS)

    def _part(self) -> None:
        """Let the client see the last answer, also when it was still talking.

        Closing a socket with unread bytes resets it, and the client might never see why it was refused.
        """
        self._buffer = b""
        if not self._unread or self._ended:
            self._close()
            return
        self._enter("parting")
        self._transport.resume_reading()
        if self._transport.can_write_eof():  # not with TLS
            self._transport.write_eof()

    def _close(self) -> None:
        self.phase = "closed"
        self._transport.close()

    def _free(self) -> None:
        if self._held:
            self._listener.hold(-self._held, self._holder)
            self._held = 0

    def _enter(self, phase: str) -> None:
        listener = self._listener
        now = listener.now()
        if self.phase == "idle":
            self._hasty = now - self._since < AT_ONCE
        self.phase, self._since = phase, now
        self.until = self._since + listener.seconds[phase]
