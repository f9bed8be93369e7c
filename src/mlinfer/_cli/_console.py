"""The console: a page on the admin port that shows a server at work, and on which a record can be tried."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from mlinfer._cli._admin import TEXT, Reply
from mlinfer._pipeline import InferencePipeline

JSON = "application/json"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console.js": ("console.js", "text/javascript; charset=utf-8"),
}
TAKES = MappingProxyType({**dict.fromkeys(FILES, "GET"), "/pipeline": "GET", "/try": "POST"})
SECONDS = 30.0
WHEN = {"before_reply": "before the reply", "behind": "behind the reply"}
NONE = {"name": "none", "detail": "answers are not kept"}


class Console:
    """Its pages, and the way of a tried record to the server, which takes it like anybody's.

    Args:
        pipeline: what is served.
        why_not: why no record may be tried here; None: one may.
        log: when an answer is given, before or after it is in the log.
    """

    takes: Mapping[str, str] = TAKES

    def __init__(self, pipeline: InferencePipeline, *, why_not: str | None, log: str) -> None:
        self._pipeline, self._why_not, self._log = pipeline, why_not, log
        self.url: str | None = None
        """Of the server, once it listens."""
        self.grpc_address: str | None = None
        """Where it speaks gRPC, too."""

    def get(self, path: str) -> Reply | None:
        """A page, or what it asks for; None: there is no such thing."""
        if path in FILES:
            name, kind = FILES[path]
            return 200, kind, (files("mlinfer._cli") / "console" / name).read_bytes()
        return (200, JSON, json.dumps(self._facts()).encode()) if path == "/pipeline" else None

    def post(self, path: str, body: bytes) -> Reply | None:
        """What the server says to a record; None: there is no such thing."""
        if path != "/try":
            return None
        if self._why_not is not None:
            return 403, TEXT, f"{self._why_not}\n".encode()
        if self.url is None:
            return 503, TEXT, b"not yet serving\n"
        try:
            return 200, JSON, json.dumps(self._asked("POST", "/predict", body)).encode()
        except (OSError, http.client.HTTPException):
            return 503, TEXT, b"the server cannot be reached\n"

    def _asked(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The status and the JSON that the server answers with."""
        place = urlsplit(self.url or "")
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": JSON} if body is not None else {})
            reply = connection.getresponse()
            return {"status": reply.status, "said": json.loads(reply.read())}
        finally:
            connection.close()

    def _facts(self) -> dict[str, Any]:
        """What does not change while the server runs."""
        from mlinfer._online import Nowhere  # a whole server, which is there by now

        job = self._pipeline.job
        kept = not isinstance(job.destination, Nowhere)
        place = "not yet serving" if self.url is None else self.url
        ways, places = ["HTTP"], [place]
        if self.grpc_address is not None:
            ways, places = [*ways, "gRPC"], [*places, self.grpc_address]
        flow = [
            {"role": "Requests", "name": ", ".join(ways), "detail": ", ".join(places)},
            {"role": "Host", **_part(job.host)},
            {"role": "Prediction log", **(_part(job.destination) if kept else NONE)},
        ]
        return {
            "name": job.name or "unnamed", "serving": self.url is not None, "flow": flow,
            "logged": WHEN[self._log] if kept else "nowhere",
            "why_not": self._why_not, "form": self._form(),
        }  # fmt: skip

    def _form(self) -> list[dict[str, Any]] | None:
        """The fields of a record, and an example of each."""
        if self._why_not is not None or self.url is None:
            return None
        try:
            document = self._asked("GET", "/openapi.json")["said"]
        except (OSError, http.client.HTTPException):
            return None
        schema = document["components"]["schemas"]["Record"]
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"][JSON]
        example = body.get("example") or {}
        return [
            {
                "name": name,
                **_kind(field),
                "required": name in schema["required"],
                "example": example.get(name),
            }
            for name, field in schema["properties"].items()
        ]


def _part(part: object) -> dict[str, str]:
    """A part by the name of its type, and by what it was told if its `repr` is of that kind."""
    name, said = type(part).__name__, repr(part)
    told = said[len(name) + 1 : -1] if said.startswith(f"{name}(") and said.endswith(")") else ""
    return {"name": name, "detail": told}


def _kind(field: dict[str, Any]) -> dict[str, str]:
    kind = field.get("type", "")
    kind = kind[0] if isinstance(kind, list) else kind
    return {"kind": kind, "type": kind or field.get("description", "")}
