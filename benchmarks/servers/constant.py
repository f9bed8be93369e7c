"""The same answer to whatever comes in, read by nobody: what the machine, the kernel and the event loop leave to a server.

python constant.py PORT
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

BODY = b'{"model_name":"model","outputs":[{"name":"y_pred","datatype":"INT64","shape":[1],"data":[1]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Constant(asyncio.Protocol):
    """Answers as soon as anything is there; enough for requests of one packet, one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(ANSWER)  # type: ignore[attr-defined]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
