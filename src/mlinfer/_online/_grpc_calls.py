"""The calls of the Open Inference Protocol over gRPC: what each is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mlinfer._online._desk import Ask, Desk
from mlinfer._online._grpc_messages import CLASSES, HEALTH, NOT_SERVING, SERVICE, SERVING
from mlinfer._online._grpc_tensors import GrpcTensors
from mlinfer._online._routes import path_name
from mlinfer._online._tensors import Kind
from mlinfer._online._trace import trace_id
from mlinfer._online._wire import JSON, Patience, Refused


class Call:
    """What becomes known of a call while it is answered."""

    rows, key = 0, "-"


Answering = Callable[[Any, Any, Call], Awaitable[bytes]]
"""What answers a call: its message, its context, and what becomes known of it."""


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
        return trace_id(metadatum(self._context, "traceparent"))

    def answer(self, data: bytes, kind: str = JSON, more: tuple[str, ...] = ()) -> None:
        """Give the answer, a message as bytes."""
        del kind, more
        if not self.answered.done():
            self.answered.set_result(data)

    def refuse(self, refused: Refused) -> None:
        """Say why there is no answer."""
        if not self.answered.done():
            self.answered.set_exception(refused.anew())


class Calls:
    """The protocol's service for one model."""

    def __init__(self, desk: Desk, form: GrpcTensors, patience: Patience, ready: Callable[[], bool]) -> None:
        self._desk, self._form, self._patience, self._ready = desk, form, patience, ready

    def services(self) -> dict[str, dict[str, Answering]]:
        """What answers each call of each service."""
        calls: dict[str, Answering] = {
            "ServerLive": self._live, "ServerReady": self._server_ready, "ServerMetadata": self._about,
            "ModelReady": self._model_ready, "ModelMetadata": self._describe, "ModelInfer": self._infer,
        }  # fmt: skip
        return {SERVICE: calls, HEALTH: {"Check": self._check}}

    async def _check(self, request: Any, context: Any, call: Call) -> bytes:
        """Health: of the server as a whole, of the protocol's service, or of the model by its name."""
        del context, call
        if request.service not in {"", SERVICE, self._form.model}:
            raise Refused(
                404, f"there is no such service here; wanted {SERVICE}, {self._form.model}, or none"
            )
        return SERVING if self._ready() else NOT_SERVING

    async def _live(self, request: Any, context: Any, call: Call) -> bytes:
        del request, context, call
        return _written("ServerLiveResponse", live=True)

    async def _server_ready(self, request: Any, context: Any, call: Call) -> bytes:
        del request, context, call
        return _written("ServerReadyResponse", ready=self._ready())

    async def _about(self, request: Any, context: Any, call: Call) -> bytes:
        del request, context, call
        return _written("ServerMetadataResponse", name="mlinfer", version="2")

    async def _model_ready(self, request: Any, context: Any, call: Call) -> bytes:
        del context, call
        self._check_model(request.name, request.version)
        return _written("ModelReadyResponse", ready=self._ready())

    async def _describe(self, request: Any, context: Any, call: Call) -> bytes:
        del context, call
        self._check_model(request.name, request.version)
        signature = self._desk.signature
        inputs = [Kind.of(field).described() for field in self._form.fields]
        outputs = [Kind.of(field).described() for field in signature.outputs]
        return _written(
            "ModelMetadataResponse", name=self._form.model, versions=[path_name(signature.version)], platform="mlinfer",
            inputs=inputs, outputs=outputs,
        )  # fmt: skip

    async def _infer(self, request: Any, context: Any, call: Call) -> bytes:
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
        most = self._patience.answer
        return most if left is None else min(left, most)

    def _check_model(self, name: str, version: str) -> None:
        """Raises Refused: it is another one."""
        there = path_name(self._desk.signature.version)
        if name != self._form.model or version not in {"", there}:
            raise Refused(
                404, f"there is no such model or version here; wanted {self._form.model}, version {there}"
            )


def _written(message: str, **fields: Any) -> bytes:
    found: bytes = CLASSES[message](**fields).SerializeToString()
    return found


def metadatum(context: Any, name: str) -> str | None:
    """What the caller's metadata say under a name; None unless it is there exactly once."""
    values = [value for key, value in context.invocation_metadata() or () if key == name]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None
