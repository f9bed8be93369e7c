"""The same answer to whatever is asked: what the machine, the kernel and each way of speaking HTTP leave to a server.

python constant.py PORT                                             a protocol class, which reads nothing
uvicorn constant:asgi         granian --interface rsgi constant:rsgi
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop

BODY = b'{"model_name":"model","outputs":[{"name":"y_pred","datatype":"INT64","shape":[1],"data":[1]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
KIND = "application/json"


class Protocol(asyncio.Protocol):
    """Answers as soon as anything is there; enough for requests of one packet, one after the other."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(ANSWER)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", KIND.encode()), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def rsgi(scope: Any, protocol: Any) -> None:
    del scope
    await protocol()
    protocol.response_bytes(200, [("content-type", KIND)], BODY)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
