"""The OpenAPI 3.1 documents: of everything the platform answers to, the gateway's routes included, and of each surface.

The document of a surface is that of everything, without the paths of others and what only they refer to.

FastAPI's own 422 is taken out: a request that cannot be accepted is 400 here.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from fastapi import FastAPI

from millrace_api.surfaces.which import surfaces_describing
from millrace_web import ingest_openapi
from millrace_web.deprecation import describe

_METHODS = frozenset({"get", "put", "post", "delete", "patch", "options", "head"})
_HEADERS = {
    "X-Request-Id": {
        "description": "The request's id: the caller's own, if it sent one.",
        "schema": {"type": "string"},
    },
    "X-RateLimit-Limit": {"description": "Requests in the window.", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "What is left of them.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "When one more fits: Unix seconds, under `/api/v1` Unix milliseconds.",
        "schema": {"type": "integer"},
    },
}
"""On every answer."""
_UNUSED = ("HTTPValidationError", "ValidationError")
DESCRIPTION = """Events come in, work gets done.

Post events to `/ingest/event/publish`; subscribe jobs, chains and webhooks to them; read what became of each.
Send `Authorization: Bearer <key>` with every request. Lists are paged by `cursor` and `limit` (1–100, 20 if not
given). A write answers with `X-Millrace-Position`: send it back on a read, and the read holds that write.
Errors say a `code`: the [error reference](/docs/errors) has all of them, why each comes and what to do.
"""

SURFACES: Mapping[str, str] = {
    "ingest": "Events come in: one, or a batch.",
    "ops": "Events fired, actions run and confirmed, customers, tickets, connectors; signed, or with a key.",
    "intake": "Intake bots, what is submitted to them, and webhooks.",
    "automation": "Workflows and their executions, forms, credentials, integrations, webhooks.",
    "native": "What is of Millrace itself: subscriptions, jobs, chains, events, runs, deliveries, keys, receipts.",
}
"""The documents there are, and what each is about."""
WHOLE = "whole"


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    made = app.openapi()
    for operations in made["paths"].values():
        for method, operation in operations.items():
            if method in _METHODS:
                operation["responses"].pop("422", None)
                for response in operation["responses"].values():
                    response["headers"] = response.get("headers", {}) | _HEADERS
    for name in _UNUSED:
        made["components"]["schemas"].pop(name, None)
    for path, operations in made["paths"].items():
        if {"ops", "automation"} <= surfaces_describing(path):
            _show_both_shapes(operations, made["components"]["schemas"])
    describe(made["paths"], app.state.deprecated)
    return ingest_openapi.merge_into(made)


def _show_both_shapes(operations: Mapping[str, Any], schemas: Mapping[str, Any]) -> None:
    """Of paths on which a signed caller is answered in the ops document's shape, and others in the automation's."""
    for method, operation in operations.items():
        if method not in _METHODS:
            continue
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                schema = content["schema"]
                content["schema"] = {"anyOf": [schema, _in_ops_shape(schema, schemas)]}


def _in_ops_shape(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    members = schemas[schema["$ref"].rpartition("/")[2]]["properties"]
    if "error" in members:
        return {"$ref": f"#/components/schemas/{_OPS_ERROR}"}
    data: Mapping[str, Any] = members["data"]
    if data.get("type") != "array":
        return data
    cursor = {"next_cursor": {"type": ["string", "null"]}, "has_more": {"type": "boolean"}}
    return {"type": "object", "properties": {"data": data, **cursor}, "required": ["data", *cursor]}


def documents(whole: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The document of each surface out of that of everything."""
    return {surface: _part(whole, surface) for surface in SURFACES}


class Documents:
    """All of them as JSON, made when the first is asked for: few processes ever are, and making them leaves 17 MB with
    each that did."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._making = asyncio.Lock()
        self._made: Mapping[str, bytes] = {}

    async def named(self, name: str) -> bytes:
        """The document of one surface, or of everything (WHOLE)."""
        async with self._making:
            if not self._made:
                self._made = await asyncio.to_thread(self._make)
        return self._made[name]

    def _make(self) -> Mapping[str, bytes]:
        whole = document(self._app)
        self._app.openapi_schema = None  # kept by FastAPI, and of no more use
        return {name: orjson.dumps(each) for name, each in {WHOLE: whole, **documents(whole)}.items()}


def _part(whole: Mapping[str, Any], surface: str) -> dict[str, Any]:
    paths = {path: item for path, item in whole["paths"].items() if surface in surfaces_describing(path)}
    schemas = whole["components"]["schemas"]
    kept: set[str] = set()
    looked_at: list[Any] = [paths]
    while looked_at:
        for name in set(_referred_to(looked_at.pop())) - kept:
            kept.add(name)
            looked_at.append(schemas[name])
    info = {**whole["info"], "title": f"Millrace: {surface}", "description": SURFACES[surface]}
    components = {**whole["components"], "schemas": {name: schemas[name] for name in schemas if name in kept}}
    return {**whole, "info": info, "paths": paths, "components": components}


def _referred_to(part: Any) -> Iterator[str]:
    """The schemas that a part of a document names."""
    if isinstance(part, Mapping):
        found = _SCHEMA.fullmatch(str(part.get("$ref", "")))
        if found is not None:
            yield found[1]
        for member in part.values():
            yield from _referred_to(member)
    elif isinstance(part, list):
        for member in part:
            yield from _referred_to(member)


_OPS_ERROR = "millrace_api__surfaces__ops__answers__Failed"
_SCHEMA = re.compile(r"#/components/schemas/(.+)")
