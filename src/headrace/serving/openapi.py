"""The OpenAPI document of an endpoint, made from the signature, with an example that works."""

import contextlib
import json
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError
from headrace.registry.mlmodel import read_mlmodel
from headrace.serving.answer import VERSION
from headrace.serving.generation import Served
from headrace.serving.schema import INTEGERS
from headrace.types import UNNAMED, Field, FieldKind, Signature

COLUMNS: dict[str, dict[str, Any]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string", "format": "date-time"},
}
EXAMPLES = {"boolean": True, "string": "text", "binary": "aGVhZHJhY2U=", "datetime": "2026-01-01T00:00:00"}
REFUSALS = {
    "400": "The body is not JSON.", "401": "A key is missing or wrong.", "404": "There is no such model or version.",
    "413": "The body or the batch is too large.", "415": "The content type is not one that is read.",
    "422": "The body does not fit the model.", "500": "The model failed on this request.",
    "503": "The queue is full, or the version has no worker.", "504": "The deadline passed.",
}  # fmt: skip


def document(component: str, served: Served) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    signature = served.signature
    body = {"application/json": {"schema": _request(signature), "example": _example(served)}}
    answer = {
        "type": "object",
        "properties": {"predictions": {}, "prediction_ids": _ids()},
        "required": ["predictions"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": component, "version": str(served.version), "summary": f"Served by headrace {VERSION}"},
        "paths": {
            "/invocations": {"post": _operation("Score rows (MLflow's protocol)", body, answer)},
            "/ping": {"get": _operation("Whether the endpoint is ready", None, {})},
            "/health": {"get": _operation("Whether the endpoint is ready", None, {})},
            "/version": {"get": _operation("What serves", None, {"type": "object"})},
            "/metrics": {"get": _operation("Prometheus metrics", None, {"type": "string"}, kind="text/plain")},
            "/feedback": {"post": _operation("Send actuals", _feedback(), {"type": "object"}, status="202")},
            "/v2": {"get": _operation("Server metadata", None, {"type": "object"})},
            "/v2/health/live": {"get": _operation("Whether the server lives", None, {"type": "object"})},
            "/v2/health/ready": {"get": _operation("Whether the server is ready", None, {"type": "object"})},
            f"/v2/models/{component}": {"get": _operation("Model metadata", None, {"type": "object"})},
            f"/v2/models/{component}/ready": {
                "get": _operation("Whether the model is ready", None, {"type": "object"})
            },
            f"/v2/models/{component}/infer": {"post": _operation("Infer (v2 protocol)", _infer(), {"type": "object"})},
            f"/predictions/{component}": {"post": _operation("Score (TorchServe's protocol)", body, {})},
        },
    }


def _operation(
    summary: str, body: Any, answer: dict[str, Any], *, status: str = "200", kind: str = "application/json"
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    responses: dict[str, Any] = {status: {"description": "The answer.", "content": {kind: {"schema": answer}}}}
    responses |= {code: {"description": text} for code, text in REFUSALS.items()}
    operation["responses"] = responses
    return operation


def _ids() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "format": "uuid"}}


def _feedback() -> dict[str, Any]:
    one = {
        "type": "object",
        "required": ["prediction_id", "actual"],
        "properties": {"prediction_id": {"type": "string", "format": "uuid"}, "actual": {}},
        "additionalProperties": False,
    }
    many = {
        "type": "object",
        "required": ["actuals"],
        "properties": {"actuals": {"type": "array", "items": one, "minItems": 1}},
        "additionalProperties": False,
    }
    return {"application/json": {"schema": {"oneOf": [one, many]}}}


def _infer() -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    schema = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": tensor}}}
    return {"application/json": {"schema": schema}}


def _request(signature: Signature | None) -> dict[str, Any]:
    if signature is None:
        return {"type": "object"}
    row = _row(signature)
    rows = {"type": "array", "items": row, "minItems": 1}
    if signature.is_tabular:
        forms = {"dataframe_records": rows, "instances": rows}
    else:
        forms = {"instances": rows, **({"inputs": rows} if signature.inputs[0].name == UNNAMED else {})}
    return {
        "oneOf": [
            {"type": "object", "required": [name], "properties": {name: form}, "additionalProperties": False}
            for name, form in forms.items()
        ]
    }


def _row(signature: Signature) -> dict[str, Any]:
    if len(signature.inputs) == 1 and signature.inputs[0].name == UNNAMED:
        return _value(signature.inputs[0])
    return {
        "type": "object",
        "required": [field.name for field in signature.inputs if field.required],
        "properties": {field.name: _value(field) for field in signature.inputs},
        "additionalProperties": False,
    }


def _value(field: Field) -> dict[str, Any]:
    if field.kind is FieldKind.COLUMN:
        return COLUMNS.get(field.dtype, {})
    if field.dtype in INTEGERS:
        inner: dict[str, Any] = {"type": "integer"}
    else:
        inner = {"type": {"bool": "boolean", "str": "string", "object": "string"}.get(field.dtype, "number")}
    for size in reversed(field.shape[1:]):
        inner = {"type": "array", "items": inner} | ({} if size < 0 else {"minItems": size, "maxItems": size})
    return inner


def _example(served: Served) -> Any:
    """Return the model's own example where it can be read back, else a made-up row."""
    with contextlib.suppress(HeadraceError, OSError, ValueError):
        path = read_mlmodel(Path(served.plan.model)).example
        if path is not None and path.stat().st_size < 65_536:
            served.scoring.read(path.read_bytes())
            return json.loads(path.read_text())
    if served.signature is None:
        return {"inputs": [[0.0]]}
    values = {field.name: _made_up(field) for field in served.signature.inputs}
    return {"instances": [values[UNNAMED] if list(values) == [UNNAMED] else values]}


def _made_up(field: Field) -> Any:
    if field.kind is FieldKind.COLUMN:
        return EXAMPLES.get(field.dtype, 0)
    inner: Any = "text" if field.dtype in ("str", "object") else field.dtype == "bool" and False
    inner = inner or 0
    for size in reversed(field.shape[1:]):
        inner = [inner] * (1 if size < 0 else size)
    return inner
