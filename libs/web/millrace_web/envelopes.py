"""What a surface's answers look like, declared once for each surface, and the handlers that make FastAPI obey.

| surface | success | error |
|---|---|---|
| ingest | `{success, …}` | `{message, code, requestId}` |
| ops | the object | `{error: {code, message, details, request_id}}`, codes lower case |
| intake | `{success: true, data}` | `{success: false, error: {code, message, details}}`, codes lower case |
| automation (also native) | `{success: true, data, meta}` | `{success: false, error: {code, message, details}}` |

Anything that goes wrong below, be it FastAPI's own refusal, an unknown path or a bug, comes out in the surface's
envelope; a bug's text stays inside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from millrace_web.allowed_methods import allowed_methods
from millrace_web.errors import CODES, ApiError, invalid
from millrace_web.request_ids import request_id_of

ERRORS_SHOWN_MAX = 20


@dataclass(frozen=True, slots=True)
class Envelope:
    """How one surface writes. `body_too_large` is its status for a body over the limit; `page` writes its errors for
    people to read, where people ask."""

    surface: str
    error: Callable[[ApiError, str], Mapping[str, Any]]
    success: Callable[[Any, Mapping[str, Any] | None], Mapping[str, Any]]
    body_too_large: int = 413
    page: Callable[[ApiError, str], Response] | None = None


def _ingest_error(error: ApiError, request_id: str) -> Mapping[str, Any]:
    details = {"details": error.details} if error.details else {}
    return {"message": error.message, "code": error.code, "requestId": request_id} | details


def _automation_error(error: ApiError, request_id: str) -> Mapping[str, Any]:
    inner: dict[str, Any] = {"code": error.code, "message": error.message, "details": dict(error.details or {})}
    inner["request_id"] = request_id
    return {"success": False, "error": inner}


def _lower(code: str) -> str:
    """How the surfaces write codes that write them small."""
    return {"VALIDATION_ERROR": "validation_failed", "BAD_REQUEST": "validation_failed"}.get(code, code.lower())


def _ops_error(error: ApiError, request_id: str) -> Mapping[str, Any]:
    inner: dict[str, Any] = {"code": _lower(error.code), "message": error.message}
    inner |= {"details": dict(error.details)} if error.details else {}
    return {"error": inner | {"request_id": request_id}}


def _intake_error(error: ApiError, request_id: str) -> Mapping[str, Any]:
    inner: dict[str, Any] = {"code": _lower(error.code), "message": error.message, "details": dict(error.details or {})}
    return {"success": False, "error": inner | {"request_id": request_id}}


def _automation_success(data: Any, meta: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"success": True, "data": data, "meta": dict(meta or {})}


INGEST = Envelope("ingest", _ingest_error, lambda data, _: {"success": True, **data})
OPS = Envelope("ops", _ops_error, lambda data, _: data)
INTAKE = Envelope("intake", _intake_error, lambda data, _: {"success": True, "data": data}, body_too_large=400)
AUTOMATION = Envelope("automation", _automation_error, _automation_success)

EnvelopeOf = Callable[[Scope], Envelope]


class JsonResponse(Response):
    """JSON by orjson. Give it what `Envelope.success` gives."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def error_response(error: ApiError, envelope: Envelope, request_id: str) -> Response:
    """The whole answer for an error."""
    if envelope.page is not None:
        return envelope.page(error, request_id)
    return JsonResponse(envelope.error(error, request_id), status_code=error.status, headers=error.headers)


def install_errors(app: FastAPI, envelope_of: EnvelopeOf) -> None:
    """Make every error of this application come out in the envelope of the path it was asked on."""

    def answer(request: Request, error: ApiError) -> Response:
        return error_response(error, envelope_of(request.scope), request_id_of(request.scope))

    async def on_http(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return answer(request, error)
        assert isinstance(error, HTTPException)
        return answer(request, _from_http(request, error))

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, _from_validation(error))

    async def on_bug(request: Request, error: Exception) -> Response:
        message = (
            f"Something failed on our side. Try again, and name request {request_id_of(request.scope)} if it stays."
        )
        return answer(request, ApiError(500, message))

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_bug)


def _from_http(request: Request, error: HTTPException) -> ApiError:
    where = f"{request.method} {request.url.path}"
    message = {
        404: f"There is nothing at {where}: see /openapi.json for what is.",
        405: f"{where} is not allowed: see the Allow header for the methods that are.",
    }.get(error.status_code, str(error.detail))
    headers = error.headers
    if error.status_code == 405:
        headers = {"allow": ", ".join(allowed_methods(request.app, request.scope["path"]))}
    return ApiError(error.status_code, message, code=CODES.get(error.status_code), headers=headers)


def _from_validation(error: RequestValidationError) -> ApiError:
    """400 that names each wrong member and what is wrong with it, and repeats none of their values."""
    wrong = [
        {"where": ".".join(str(part) for part in entry["loc"]), "problem": str(entry["msg"])}
        for entry in error.errors()[:ERRORS_SHOWN_MAX]
    ]
    return invalid("; ".join(f"{w['where']}: {w['problem']}" for w in wrong), details={"errors": wrong})
