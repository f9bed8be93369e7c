"""The Open Inference Protocol over gRPC, at the same desk as HTTP and on the same event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from mlinfer._errors import ConfigError
from mlinfer._online._access import tell
from mlinfer._online._desk import Ask, Desk
from mlinfer._online._grpc_messages import CLASSES, HEALTH, NOT_SERVING, SERVICE, SERVING
from mlinfer._online._grpc_reading import Messages
from mlinfer._online._grpc_tensors import GrpcTensors
from mlinfer._online._keys import Keys
from mlinfer._online._listener import Listener
from mlinfer._online._refusals import ENDS, refusal
from mlinfer._online._routes import path_name
from mlinfer._online._tensors import Kind
from mlinfer._online._trace import trace_id
from mlinfer._online._wire import JSON, Refused

MOST_BYTES = 4 * 2**20
"""Of a message; gRPC takes memory for it while it comes in, whatever its size will be, so this is less than over HTTP."""
MOST_CALLS = 2048
MOST_READING = 32
"""Messages that come in at once; further ones wait in their senders, but for a window of 64 KiB."""
MOST_PROBES, PROBE_SECONDS = 4, 1.0
"""The same for messages of probes, which anybody may send: a few bytes, so they have to be there at once."""
LONGEST_DETAILS = 1000
LEAVING_SECONDS = 0.2
"""So long calls are still refused in words, once the server ends."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
OPTIONS = [
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 2**10),
    ("grpc.max_concurrent_streams", MOST_CALLS // 8),  # of one connection: further ones wait in their client
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_OPEN = {"Check", "ServerLive", "ServerReady"}
"""To anybody, without a key: probes."""
Call = Callable[[Any, Any, "_Call"], Awaitable[Any]]


class _Call:
    """What becomes known of a call while it is answered."""

    rows, key = 0, "-"


class Waiting:
    """A caller that waits for its answer."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def alone(self) -> bool:
        """Nobody knows."""
        return False

    @property
    def trace(self) -> str | None:
        """The trace to which the call belongs, if it says so."""
        return trace_id(_said(self._context, "traceparent"))

    def answer(self, data: bytes, kind: str = JSON, more: tuple[str, ...] = ()) -> None:
        """Give the answer, a message as bytes."""
        del kind, more
        if not self.answered.done():
            self.answered.set_result(data)

    def refuse(self, refused: Refused) -> None:
        """Say why there is no answer."""
        if not self.answered.done():
            self.answered.set_exception(refused.anew())


class GrpcServer:
    """The protocol's service for one model."""

    def __init__(self, desk: Desk, form: GrpcTensors, listener: Listener, ready: Callable[[], bool]) -> None:
        self._desk, self._form, self._listener, self._ready = desk, form, listener, ready
        self.keys: Keys | None = None
        self._server: Any = None
        self._leaving = False
        self._messages = Messages(MOST_READING, listener.patience.body)
        self._probes = Messages(MOST_PROBES, PROBE_SECONDS)

    async def open(
        self, address: str, tls: tuple[Any, Any] | None, keys: Keys | None, *, shared: bool = False
    ) -> str:
        """Listen, `shared`: beside others; gives HOST:PORT. Raises ConfigError: the address is taken."""
        self.keys = keys
        patience = self._listener.patience
        options = [
            *OPTIONS,
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_allowed_incoming_connections", self._listener.room // 2),
            ("grpc.max_connection_idle_ms", int(1000 * patience.idle)),
            ("grpc.server_handshake_timeout_ms", int(1000 * patience.head)),
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MOST_CALLS)
        calls: dict[str, Call] = {
            "ServerLive": self._live, "ServerReady": self._server_ready, "ServerMetadata": self._about,
            "ModelReady": self._model_ready, "ModelMetadata": self._describe, "ModelInfer": self._infer,
        }  # fmt: skip
        services: dict[str, dict[str, Call]] = {SERVICE: calls, HEALTH: {"Check": self._check}}
        for service, named in services.items():
            handlers = {
                # on the wire the same as a single message, which here is not read before it is known who sends it
                name: grpc.stream_unary_rpc_method_handler(self._guarded(f"/{service}/{name}", call))
                for name, call in named.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                chain, key = (_content(file) for file in tls)
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
        except RuntimeError as error:
            await self._server.stop(None)
            msg = f"grpc_bind: wanted to listen at {address}, found that this is not possible; take another port"
            raise ConfigError(msg) from error
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def close(self) -> None:
        """Take nothing new, and return when every request that was accepted has its answer."""
        patience = self._listener.patience
        self._leaving = True
        # a call that gRPC has taken but not handed over when it stops would get CANCELLED, as if its caller had given up
        await asyncio.sleep(LEAVING_SECONDS)
        asyncio.get_running_loop().call_later(patience.stop, self._messages.end)
        await self._server.stop(patience.stop + patience.answer)

    def _guarded(self, path: str, call: Call) -> Callable[[Any, Any], Awaitable[bytes]]:
        """A call that looks who asks, then reads its message, tells refusals in our own words, and is counted."""
        name = path.rpartition("/")[2]
        message = CLASSES["HealthCheckRequest" if name == "Check" else f"{name}Request"]
        is_open, listener = name in _OPEN, self._listener
        messages = self._probes if is_open else self._messages

        async def handler(unread: Any, context: Any) -> bytes:
            del unread
            held = status = 0
            begun, call_ = listener.now(), _Call()
            try:
                if not is_open:
                    self._let_in(context, call_)
                data = await messages.read(context, self._sharing(call_))
                held = listener.hold(len(data), call_.key)
                found: bytes = await call(_parsed(message, data), context, call_)
            except Exception as error:  # noqa: BLE001 - told in our own words, and logged where they are not enough
                refused = refusal(error)
                status = refused.status
                listener.rejected(refused)
                return await context.abort(CODES.get(status, grpc.StatusCode.INTERNAL), _details(refused))  # type: ignore[no-any-return]
            else:
                status = 200
                return found
            finally:
                listener.hold(-held, call_.key)
                status = status or 499  # the caller has gone
                listener.told(path, status)
                if listener.access is not None:
                    seconds = listener.now() - begun
                    tell(
                        f"GRPC {path} {status}",
                        rows=call_.rows,
                        seconds=seconds,
                        key=call_.key,
                        asked=_said(context, "x-request-id"),
                        trace=trace_id(_said(context, "traceparent")),
                    )

        return handler

    def _let_in(self, context: Any, call: _Call) -> None:
        """Note whose key this is. Raises Refused: nobody's, or the server ends."""
        if self._leaving:
            raise ENDS.anew()
        if self.keys is not None:
            call.key = self.keys.holder(_said(context, "authorization")).name

    def _sharing(self, call: _Call) -> str | None:
        """By which key, where several may ask."""
        return call.key if self.keys is not None and self.keys.several else None

    # --- the protocol's calls ---------------------------------------------------------------------------------------

    async def _check(self, request: Any, context: Any, call: _Call) -> bytes:
        """Health: of the server as a whole, of the protocol's service, or of the model by its name."""
        del context, call
        if request.service not in {"", SERVICE, self._form.model}:
            raise Refused(
                404, f"there is no such service here; wanted {SERVICE}, {self._form.model}, or none"
            )
        return SERVING if self._ready() else NOT_SERVING

    async def _live(self, request: Any, context: Any, call: _Call) -> bytes:
        del request, context, call
        return _written("ServerLiveResponse", live=True)

    async def _server_ready(self, request: Any, context: Any, call: _Call) -> bytes:
        del request, context, call
        return _written("ServerReadyResponse", ready=self._ready())

    async def _about(self, request: Any, context: Any, call: _Call) -> bytes:
        del request, context, call
        return _written("ServerMetadataResponse", name="mlinfer", version="2")

    async def _model_ready(self, request: Any, context: Any, call: _Call) -> bytes:
        del context, call
        self._check_model(request.name, request.version)
        return _written("ModelReadyResponse", ready=self._ready())

    async def _describe(self, request: Any, context: Any, call: _Call) -> bytes:
        del context, call
        self._check_model(request.name, request.version)
        signature = self._desk.signature
        inputs = [Kind.of(field).described() for field in self._form.fields]
        outputs = [Kind.of(field).described() for field in signature.outputs]
        return _written(
            "ModelMetadataResponse", name=self._form.model, versions=[path_name(signature.version)], platform="mlinfer",
            inputs=inputs, outputs=outputs,
        )  # fmt: skip

    async def _infer(self, request: Any, context: Any, call: _Call) -> bytes:
        self._check_model(request.model_name, request.model_version)
        asked, rows = self._form.read(request)
        caller = Waiting(context)
        ask = Ask(self._form, asked, rows, caller)
        call.rows = rows
        seconds = self._time_for(context)
        self._desk.put(ask, seconds)
        try:
            return await asyncio.wait_for(caller.answered, seconds)
        except TimeoutError as error:
            raise Refused(
                504, "there was no answer in the time there is; give it more, or ask again in a moment"
            ) from error
        finally:
            ask.abandoned = True  # once answered this means nothing

    def _time_for(self, context: Any) -> float:
        """Seconds until the caller's deadline, or until nobody should wait any longer."""
        left = context.time_remaining()
        most = self._listener.patience.answer
        return most if left is None else min(left, most)

    def _check_model(self, name: str, version: str) -> None:
        """Raises Refused: it is another one."""
        there = path_name(self._desk.signature.version)
        if name != self._form.model or version not in {"", there}:
            raise Refused(
                404, f"there is no such model or version here; wanted {self._form.model}, version {there}"
            )


def _parsed(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise Refused(
            400, "wanted a message of the Open Inference Protocol, found bytes that are none"
        ) from error


def _written(message: str, **fields: Any) -> bytes:
    found: bytes = CLASSES[message](**fields).SerializeToString()
    return found


def _said(context: Any, name: str) -> str | None:
    """What the caller's metadata say under a name; None unless it is there exactly once."""
    values = [value for key, value in context.invocation_metadata() or () if key == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _details(refused: Refused) -> str:
    """A refusal in one line: what is wrong, the first records with a reason, the id that the log knows it by."""
    said = json.loads(refused.data)
    words = [said["error"], *(f"row {one['row']}: {one['message']}" for one in said.get("records", [])[:5])]
    text = "; ".join(words)[:LONGEST_DETAILS]
    return f"{text} (error {said['id']})" if "id" in said else text


def _content(file: str | os.PathLike[str]) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123 - a path of any kind
        return opened.read()
