"""The OpenAPI document of the control API, made of the operations and of the very bodies that validate requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec

from headrace.dashboard.access import Handler
from headrace.lifecycle.upkeep.tokens import Rank

PATH = "/api/openapi.json"
HOOK = "/hooks/{component}"
REF = "#/components/schemas/{name}"
REFUSALS = {
    "400": "The request cannot be right.", "401": "The token is missing, wrong, expired or revoked.",
    "403": "Who asks may not do this.", "404": "There is no such thing.",
    "409": "Somebody was faster, or the thing is in a state in which this cannot be done.",
    "422": "headrace.yaml or a setting is wrong.", "429": "Too many wrong tokens; wait as `Retry-After` says.",
    "503": "Something that is needed does not answer.",
}  # fmt: skip


class Refusal(msgspec.Struct):
    """Why something was not done: a fact, what to do or type next, and the command line's exit code."""

    fact: str
    remedy: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked.

    Attributes:
        rank: what the caller's token must be at least.
        body, query: the struct that the request is decoded into; None where nothing is read.
    """

    method: str
    path: str
    handler: Handler
    rank: Rank
    summary: str
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    media: str = "application/json"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    structs = {one for operation in operations for one in (operation.body, operation.query) if one is not None}
    named = sorted(structs | {Refusal}, key=lambda struct: struct.__name__)
    _, schemas = msgspec.json.schema_components(named, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    paths[PATH] = {"get": {"summary": "This document", "security": [], "responses": {"200": _answer()}}}
    paths[HOOK] = {"post": _hook(schemas)}
    asked = {operation.query.__name__ for operation in operations if operation.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {"title": "headrace control", "version": version("headrace")},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name not in asked},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": operation.summary,
        "description": f"For tokens of the role {operation.rank.value} and above.",
        "operationId": f"{operation.method.lower()}{operation.path.replace('/', '_')}",
        "responses": {"200": _answer(operation.media)} | _refusals(),
    }
    if operation.query is not None:
        found["parameters"] = _parameters(schemas[operation.query.__name__])
    if operation.body is not None:
        schema = {"$ref": REF.format(name=operation.body.__name__)}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a query struct's fields as parameters."""
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _given(one)}
        for name, one in schema["properties"].items()
    ]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without the null that stands for one that is left out."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else schema


def _answer(media: str = "application/json") -> dict[str, Any]:
    schema = {"type": "object"} if media == "application/json" else {"type": "string"}
    return {"description": "The answer.", "content": {media: {"schema": schema}}}


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF.format(name=Refusal.__name__)}}}
    return {status: {"description": text, "content": content} for status, text in REFUSALS.items()}


def _hook(schemas: dict[str, Any]) -> dict[str, Any]:
    name = {"type": "string"}
    return {
        "summary": "A signed webhook: a push as GitHub, Gitea and Forgejo tell it, or MLflow's hint to look",
        "security": [],
        "parameters": [
            {"name": "component", "in": "path", "required": True, "schema": name},
            {"name": "X-Hub-Signature-256", "in": "header", "required": False, "schema": {"type": "string"}},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"202": _answer()}
        | _refusals()
        | {
            "408": {"description": "The body did not come in time."},
            "413": {"description": "The body is too large."},
        },
    }
