"""What intake routes answer (seed 002): `{success, data}`, lists as `{items, next_cursor, has_more}`, and the
shapes for the OpenAPI document."""

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from millrace_api.surfaces.answers import Json
from millrace_web.envelopes import INTAKE
from millrace_web.paging import Page

T = TypeVar("T")


class One(BaseModel, Generic[T]):
    success: Literal[True]
    data: T


class Items(BaseModel, Generic[T]):
    items: list[T]
    next_cursor: str | None
    has_more: bool


class Many(BaseModel, Generic[T]):
    success: Literal[True]
    data: Items[T]


class ErrorBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "code": "validation_failed",
                "message": "data: does not fit the form: data.name is required",
                "details": {"errors": [{"where": "body.data.name", "problem": "is required"}]},
                "request_id": "req_01900000000070008000000000000000",
            }
        }
    )
    code: str
    message: str
    details: dict[str, Any]
    request_id: str


class Failed(BaseModel):
    success: Literal[False]
    error: ErrorBody


class Deleted(BaseModel):
    id: str
    deleted: Literal[True]


def one(data: object, *, status: int = 200) -> Response:
    """One thing."""
    return Json(INTAKE.success(data, None), status_code=status)


def many(page: Page[Any], items: Sequence[object]) -> Response:
    """One page of a list, its items as this surface shows them."""
    return one({"items": items, **page.meta})


_ERRORS = {
    400: "`validation_failed`: `details` names each member; also for a body over 1 MB.",
    401: "`unauthorized`: no valid API key.",
    403: "`forbidden`: the key lacks the scope.",
    404: "`not_found`: there is no such thing in this account.",
    408: "`timeout`: the body did not arrive in time; send it again, on a new connection.",
    409: "`conflict`, or `idempotency_conflict`: the Idempotency-Key stands for another request.",
    429: "`rate_limited`: wait `Retry-After` seconds.",
    503: "`unavailable`: something behind the API is away; try again.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these errors, with those that any route can give."""
    every = sorted({401, 403, 429, 503, *statuses})
    return {status: {"model": Failed, "description": _ERRORS[status]} for status in every}


READ = errors(400, 404)
WRITE = errors(400, 404, 408, 409)
