"""What may be asked and what is answered, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._casts import is_bytes, is_list, is_text
from mlinfer._layout import Layout
from mlinfer._online._wire import MOST_BYTES, MOST_ROWS
from mlinfer._signature import allows_nonfinite

REFUSALS = {
    "400": "The request is not one.",
    "401": "There is no valid key.",
    "413": f"It is too large: at most {MOST_BYTES:,} bytes and {MOST_ROWS:,} records.",
    "415": "The body is not JSON in UTF-8.",
    "422": "Records are bad; `records` names them, and none was answered.",
    "500": "It failed; the log tells why under this `id`.",
    "503": "There is too much to do; ask again in a moment.",
}


def openapi(layout: Layout, example: dict[str, Any] | None, *, keys: bool) -> dict[str, Any]:
    """The document for one model; `example` is a record, `keys` says whether a key must be shown."""
    signature = layout.signature
    one_or_many = {name: _one_or_many(name) for name in ("Record", "Answer")}
    body = {"schema": one_or_many["Record"], **({} if example is None else {"example": example})}
    predict: dict[str, Any] = {
        "summary": "Answer a record, or a list of records in the same order.",
        "operationId": "predict",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The answers.", "content": {"application/json": {"schema": one_or_many["Answer"]}}},
            **{status: _refusal(text) for status, text in REFUSALS.items() if keys or status != "401"},
        },
    }  # fmt: skip
    schemas = {
        "Record": record_schema(layout),
        "Answer": _object({field.name: _output(field) for field in layout.output}, layout.output.names),
        "Refusal": _object(
            {"error": {"type": "string"}, "id": {"type": "string"}, "records": {"type": "array"}}, ["error"]
        ),
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": signature.model_id,
            "version": signature.version,
            "description": "The Open Inference Protocol, version 2, is spoken below /v2.",
        },
        "paths": {
            "/predict": {"post": predict},
            "/live": {"get": _probe("Whether the server lives.")},
            "/ready": {"get": _probe("Whether it answers.")},
        },
        "components": {"schemas": schemas},
    }
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        predict["security"] = [{"key": []}]
    return document


def record_schema(layout: Layout) -> dict[str, Any]:
    """A record as JSON Schema: the inputs of the model and the columns that are kept."""
    required = [field.name for field in layout.inputs if not field.nullable]
    return _object(
        {field.name: _schema(field.type, nullable=field.name not in required) for field in layout.wanted},
        required,
    )


def _output(field: pa.Field) -> dict[str, Any]:
    return _schema(field.type, nullable=field.nullable or allows_nonfinite(field))


def _schema(kind: pa.DataType, *, nullable: bool) -> dict[str, Any]:
    """JSON Schema of a value; a type that JSON can hold in several ways is left open."""
    if isinstance(kind, pa.BaseExtensionType):
        return _schema(kind.storage_type, nullable=nullable)
    if pt.is_dictionary(kind):
        return _schema(kind.value_type, nullable=nullable)
    schema = _plain(kind)
    if nullable and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


def _plain(kind: pa.DataType) -> dict[str, Any]:
    if pt.is_boolean(kind):
        return {"type": "boolean"}
    if pt.is_integer(kind):
        return {"type": "integer"}
    if pt.is_floating(kind):
        return {"type": "number"}
    if is_text(kind):
        return {"type": "string"}
    if is_bytes(kind):
        return {"type": "string", "contentEncoding": "base64"}
    return _nested(kind) if pt.is_nested(kind) else {"description": str(kind)}


def _nested(kind: pa.DataType) -> dict[str, Any]:
    if pt.is_struct(kind):
        inside = [kind.field(number) for number in range(kind.num_fields)]
        parts = {field.name: _schema(field.type, nullable=field.nullable) for field in inside}
        return _object(parts, [field.name for field in inside if not field.nullable])
    if pt.is_map(kind):
        return {"type": "object", "additionalProperties": _schema(kind.item_type, nullable=True)}
    if not is_list(kind):
        return {"description": str(kind)}
    size = {"minItems": kind.list_size, "maxItems": kind.list_size} if pt.is_fixed_size_list(kind) else {}
    return {"type": "array", "items": _schema(kind.value_type, nullable=True), **size}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _one_or_many(name: str) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{name}"}
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MOST_ROWS}]}


def _refusal(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Refusal"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _probe(text: str) -> dict[str, Any]:
    return {
        "summary": text,
        "responses": {"200": {"description": "Yes."}, "503": {"description": "Not now."}},
    }
