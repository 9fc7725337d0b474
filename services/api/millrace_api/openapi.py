"""The OpenAPI 3.1 document of everything the platform answers to, the gateway's ingest routes included.

FastAPI's own 422 is taken out: a request that cannot be accepted is 400 here.
"""

from typing import Any

from fastapi import FastAPI

from millrace_web import ingest_openapi

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
"""


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
    return ingest_openapi.merge_into(made)
