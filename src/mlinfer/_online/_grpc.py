"""The Open Inference Protocol over gRPC, at the same desk as HTTP and on the same event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from mlinfer._errors import ConfigError
from mlinfer._online._access import tell
from mlinfer._online._desk import Desk
from mlinfer._online._grpc_calls import Answering, Call, Calls, metadatum
from mlinfer._online._grpc_messages import CLASSES
from mlinfer._online._grpc_reading import Messages
from mlinfer._online._grpc_taking import Taking
from mlinfer._online._grpc_tensors import GrpcTensors
from mlinfer._online._keys import Keys
from mlinfer._online._listener import Listener
from mlinfer._online._refusals import ENDS, refusal
from mlinfer._online._trace import trace_id
from mlinfer._online._wire import Refused

MOST_MESSAGE_BYTES = 4 * 2**20
"""Of a message; gRPC takes memory for it while it comes in, whatever its size will be, so this is less than over HTTP."""
MOST_CALLS = 2048
MOST_PENDING = 4 * MOST_CALLS
"""Calls that come while the loop is at work; beyond that gRPC cancels them, as if their callers had given up."""
MOST_READING = 32
"""Messages that come in at once; further ones wait in their senders, but for a window of 64 KiB."""
MOST_PROBES, PROBE_SECONDS = 4, 1.0
"""The same for messages of probes, which anybody may send: a few bytes, so they have to be there at once."""
LONGEST_DETAILS = 1000
LEAVING_SECONDS, MOST_LEAVING = 0.2, 5
"""Once the server ends, calls are still refused in words until so long none has come, or that has been tried so often."""
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
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 2**10),
    ("grpc.max_concurrent_streams", MOST_CALLS // 8),  # of one connection: further ones wait in their client
    ("grpc.server.max_pending_requests", MOST_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_OPEN = {"Check", "ServerLive", "ServerReady"}
"""To anybody, without a key: probes."""


class GrpcServer:
    """Listens, lets in who may ask, reads their messages and counts them; `Calls` answers."""

    def __init__(self, desk: Desk, form: GrpcTensors, listener: Listener, ready: Callable[[], bool]) -> None:
        self._calls, self._listener = Calls(desk, form, listener.patience, ready), listener
        self.keys: Keys | None = None
        self._server: Any = None
        self._leaving = False
        self._came = 0  # calls
        self._messages = Messages(MOST_READING, listener.patience.body)
        self._probes = Messages(MOST_PROBES, PROBE_SECONDS)
        self._taking = Taking(listener, MOST_CALLS // 2)

    async def open(
        self, address: str, tls: tuple[Path, Path] | None, keys: Keys | None, *, shared: bool = False
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
        for service, named in self._calls.services().items():
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
                chain, key = (file.read_bytes() for file in tls)
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
        except RuntimeError as error:
            await self._server.stop(None)
            msg = f"grpc_bind: wanted to listen at {address}, found that this is not possible; take another port"
            raise ConfigError(msg) from error
        self._taking.port = port
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def close(self) -> None:
        """Take nothing new, and return when every request that was accepted has its answer."""
        patience = self._listener.patience
        self._leaving = True
        # a call that gRPC has taken but not handed over when it stops would get CANCELLED, as if its caller had given up
        for _ in range(MOST_LEAVING):  # a slow machine hands them over later
            before, begun = self._came, self._listener.now()
            await asyncio.sleep(LEAVING_SECONDS)
            # a loop that stood still has not seen yet what came meanwhile
            if before == self._came and self._listener.now() - begun < 2 * LEAVING_SECONDS:
                break
        asyncio.get_running_loop().call_later(patience.stop, self._messages.end)
        await self._server.stop(patience.stop + patience.answer)

    def _guarded(self, path: str, call: Answering) -> Callable[[Any, Any], Awaitable[bytes]]:
        """A call that looks who asks, then reads its message, tells refusals in our own words, and is counted."""
        name = path.rpartition("/")[2]
        message = CLASSES["HealthCheckRequest" if name == "Check" else f"{name}Request"]
        is_open, listener = name in _OPEN, self._listener
        messages = self._probes if is_open else self._messages

        async def handler(unread: Any, context: Any) -> bytes:
            del unread
            self._came += 1
            held = status = 0
            begun, call_ = listener.now(), Call()
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
                await self._taking.give(context, len(found))
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
                        asked=metadatum(context, "x-request-id"),
                        trace=trace_id(metadatum(context, "traceparent")),
                    )

        return handler

    def _let_in(self, context: Any, call: Call) -> None:
        """Note whose key this is. Raises Refused: nobody's, or the server ends."""
        if self._leaving:
            raise ENDS.anew()
        if self.keys is not None:
            call.key = self.keys.holder(metadatum(context, "authorization")).name

    def _sharing(self, call: Call) -> str | None:
        """By which key, where several may ask."""
        return call.key if self.keys is not None and self.keys.several else None


def _parsed(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError as error:
        raise Refused(
            400, "wanted a message of the Open Inference Protocol, found bytes that are none"
        ) from error


def _details(refused: Refused) -> str:
    """A refusal in one line: what is wrong, the first records with a reason, the id that the log knows it by."""
    said = json.loads(refused.data)
    words = [said["error"], *(f"row {one['row']}: {one['message']}" for one in said.get("records", [])[:5])]
    text = "; ".join(words)[:LONGEST_DETAILS]
    return f"{text} (error {said['id']})" if "id" in said else text
