"""The Open Inference Protocol, version 2, over HTTP: JSON, and the binary tensor extension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mlinfer._layout import Layout
from mlinfer._online._desk import Desk
from mlinfer._online._json import dump
from mlinfer._online._oip_infer import Infer
from mlinfer._online._oip_tensors import Tensors
from mlinfer._online._routes import Order, Route, path_name, ready_if, said
from mlinfer._online._tensors import Kind
from mlinfer._online._wire import BINARY, JSON, Refused


def oip_routes(desk: Desk, layout: Layout, ready: Callable[[], bool]) -> dict[str, Route]:
    """All paths of the protocol for one model, with `*` for the version that answers."""
    model = path_name(layout.signature.model_id)
    form = Tensors(layout, model)
    metadata = {
        "name": model,
        "platform": "mlinfer",
        "inputs": [Kind.of(field).described() for field in layout.inputs],
        "outputs": [Kind.of(field).described() for field in layout.signature.outputs],
    }
    server = {"name": "mlinfer", "version": "2", "extensions": ["binary_tensor_data"]}

    def describe(order: Order, body: bytes) -> None:
        del body
        order.answer(dump({**metadata, "versions": [path_name(desk.signature.version)]}))

    path = f"/v2/models/{model}"
    of_model = {
        "": Route("GET", describe),
        "/ready": Route("GET", ready_if(ready, dump({"name": model, "ready": True}))),
        "/infer": Route("POST", Infer(desk, form), (JSON, BINARY, "")),
    }
    return {
        "/v2": Route("GET", said(dump(server))),
        "/v2/health/live": Route("GET", said(dump({"live": True})), open=True),
        "/v2/health/ready": Route("GET", ready_if(ready, dump({"ready": True})), open=True),
        **{f"{path}{end}": route for end, route in of_model.items()},
        **{f"{path}/versions/*{end}": _of_version(desk, route) for end, route in of_model.items()},
    }


def _of_version(desk: Desk, route: Route) -> Route:
    """The same for the version that answers: a client may repeat a head that it sent when another one did."""

    def handle(order: Order, body: bytes) -> None:
        there = path_name(desk.signature.version)
        if order.head.path.split("/")[5] != there:
            raise Refused(404, f"there is no such version here any more; wanted {there}")
        route.handle(order, body)

    return replace(route, handle=handle)
