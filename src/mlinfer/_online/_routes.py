"""Which request asks for what, and who may ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from mlinfer._online._head import Head, body_length, no_body, timeout
from mlinfer._online._refusals import ENDS, refusal
from mlinfer._online._trace import trace_id
from mlinfer._online._wire import JSON, Refused

if TYPE_CHECKING:
    from mlinfer._online._connection import Connection
    from mlinfer._online._desk import Ask
    from mlinfer._online._keys import Key, Keys

MODELS = "/v2/models/"
_PORT = re.compile("[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Route:
    """What is done for one path. `handle` answers or refuses the order it is given, now or later; it may raise Refused.

    `kinds`: what the body may be; "" among them: what is not said, as some clients do. `open`: to anybody, without a key.
    """

    method: str
    handle: Callable[[Order, bytes], None]
    kinds: tuple[str, ...] = (JSON,)
    open: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """What can be read can be looked at without its body."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


class Order:
    """One request: what its head asked for, and the way back to whoever asked."""

    __slots__ = ("_connection", "ask", "head", "key", "length", "route", "within")

    def __init__(self, head: Head, length: int, route: Route, connection: Connection) -> None:
        self.head, self.length, self.route = head, length, route
        self._connection = connection
        self.ask: Ask | None = None
        """Until it is answered: two that hold each other would wait for the garbage collector."""
        self.key: Key | None = None
        self.within: float | None = None
        """Seconds that the client will wait for its answer."""

    def again(self) -> Order:
        """The order that the same head means when it comes again; whether its key is still valid must be asked anew."""
        order = Order(self.head, self.length, self.route, self._connection)
        order.key, order.within = self.key, self.within
        return order

    @property
    def trace(self) -> str | None:
        """The trace to which the request belongs, if it says so."""
        return trace_id(self.head.one("traceparent"))

    @property
    def alone(self) -> bool:
        """Whether nobody else has a connection of HTTP."""
        return self._connection.alone

    def begin(self, body: bytes) -> None:
        """The body is there."""
        try:
            self.route.handle(self, body)
        except Exception as error:  # noqa: BLE001 - told and logged as any other failure; the connection goes on
            self.refuse(refusal(error))

    def answer(self, data: bytes, kind: str = JSON, more: tuple[str, ...] = ()) -> None:
        """Give the answer."""
        self._connection.answer(self, data, kind, more)
        self.ask = None

    def refuse(self, refused: Refused) -> None:
        """Give the reason why there is none."""
        self._connection.refuse(self, refused)
        self.ask = None

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        if self.ask is not None:
            self.ask.abandoned = True
            self.ask = None


class Routes:
    """The paths there are, the names under which this server may be asked, and the keys of those who may ask.

    In a path, `*` stands for the `version` of the model that answers at that moment.
    """

    def __init__(
        self, names: set[str], routes: Mapping[str, Route], keys: Keys | None, version: Callable[[], str]
    ) -> None:
        self._names, self._routes, self._keys, self._version = names, routes, keys, version

    def allows(self, order: Order) -> bool:
        """Whether an order of a while ago may be repeated."""
        return order.key is None or self._keys is None or self._keys.holds(order.key)

    @property
    def shared(self) -> bool:
        """Whether several may ask, each by a key of its own."""
        return self._keys is not None and self._keys.several

    def look(self) -> None:
        """Notice keys that have changed."""
        if self._keys is not None:
            self._keys.look()

    def order(self, head: Head, connection: Connection) -> Order:
        """What a head asks for. Raises Refused."""
        self._check_name(head)
        route = self._at(head.path)
        key = None
        if self._keys is not None and (route is None or not route.open):
            key = self._keys.holder(head.one("authorization"))
        order = self._order(head, route, connection)
        order.key = key
        return order

    def _at(self, path: str) -> Route | None:
        if "*" in path:
            return None
        return self._routes.get(path) or self._routes.get(self._starred(path))

    def _starred(self, path: str) -> str:
        before, versions, rest = path.partition("/versions/")
        version, slash, end = rest.partition("/")
        return f"{before}{versions}*{slash}{end}" if version == self._version() else path

    def _order(self, head: Head, route: Route | None, connection: Connection) -> Order:
        if route is None:
            raise self._nowhere(head.path)
        if head.method not in route.methods:
            raise Refused(
                405, f"wanted {route.method} {head.path}", header=f"Allow: {', '.join(route.methods)}"
            )
        if route.method == "GET":
            no_body(head)
            return Order(head, 0, route, connection)
        _check_kind(head, route.kinds)
        order = Order(head, body_length(head), route, connection)
        order.within = timeout(head)
        return order

    def _nowhere(self, path: str) -> Refused:
        """A path is looked up as it is: one name has one spelling, here and for whoever stands in front."""
        meant = unquote(path.partition("?")[0]).rstrip("/")
        if self._at(meant) is not None:
            return Refused(
                404,
                f"wanted {meant} as it is written here, without a slash or a query behind it and without %",
            )
        if f"{meant}/".startswith(MODELS):
            there = next((path for path in self._routes if path.startswith(MODELS)), MODELS)
            msg = f"there is no such model or version here; wanted {there}, version {self._version()}"
            return Refused(404, msg)
        return Refused(404, "there is nothing here; ask POST /predict, or see /docs, /openapi.json and /v2")

    def _check_name(self, head: Head) -> None:
        """A page in a browser must not reach a loopback server under a name of its own choosing."""
        name, colon, port = (head.one("host") or "").partition(":")
        if name.lower() not in self._names or (colon and not _PORT.fullmatch(port)):
            raise Refused(
                400, "wanted one Host header, with a name that this server was given (--name, names=)"
            )


@lru_cache(256)
def path_name(name: str) -> str:
    """A name as it may stand in a path: letters, digits, dots, underscores and dashes, at most 128."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:128] or "model"


def said(data: bytes) -> Callable[[Order, bytes], None]:
    """Always the same answer."""

    def handle(order: Order, body: bytes) -> None:
        del body
        order.answer(data)

    return handle


def ready_if(ready: Callable[[], bool], data: bytes) -> Callable[[Order, bytes], None]:
    """This answer while the server is ready."""

    def handle(order: Order, body: bytes) -> None:
        del body
        if not ready():
            raise ENDS.anew()
        order.answer(data)

    return handle


def _check_kind(head: Head, kinds: tuple[str, ...]) -> None:
    kind, *parameters = (head.one("content-type") or "").lower().split(";")
    unsaid = "content-type" not in head.headers and "" in kinds and not _from_a_browser(head)
    if kind.strip() not in kinds or not (kind or unsaid):
        several = len(head.headers.get("content-type", ())) > 1
        found = repr(kind.strip()[:100]) if kind.strip() else "several" if several else "none"
        raise Refused(415, f"wanted Content-Type: {' or '.join(filter(None, kinds))}, found {found}")
    charset = [one.strip() for one in parameters if one.strip()]
    if charset not in ([], ["charset=utf-8"], ['charset="utf-8"']) or "content-encoding" in head.headers:
        raise Refused(415, "wanted a body in UTF-8, not compressed", header="Accept-Encoding: identity")


def _from_a_browser(head: Head) -> bool:
    """A page elsewhere can make a browser send a request without a type, but not without these."""
    return any(name in head.headers for name in ("origin", "referer", "sec-fetch-site", "sec-fetch-mode"))
