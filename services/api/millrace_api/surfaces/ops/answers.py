"""What ops routes answer: the object itself, a list as `{data, next_cursor, has_more}`, and the shape of its errors."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace_api.surfaces.answers import Json
from millrace_web import positions
from millrace_web.envelopes import OPS
from millrace_web.paging import Page
from millrace_web.positions import Position

T = TypeVar("T")


class Many(BaseModel, Generic[T]):
    data: list[T]
    next_cursor: str | None = Field(description="Send it as `cursor` to get the next page; null on the last.")
    has_more: bool


class ErrorBody(BaseModel):
    code: str
    message: str
    details: dict[str, Any] | None = None
    request_id: str


class Failed(BaseModel):
    error: ErrorBody


class Deleted(BaseModel):
    id: str
    deleted: bool


def one(data: object, *, status: int = 200, at: Position | None = None) -> Response:
    """One thing. `at` is where a write stands on the log."""
    headers = {} if at is None else {positions.HEADER: positions.render([at])}
    return Json(OPS.success(data, None), status_code=status, headers=headers)


def many(page: Page[Any]) -> Response:
    """One page of a list."""
    return Json(OPS.success({"data": page.items, **page.meta}, None))


_ERRORS: Mapping[int, str] = {
    400: "`validation_failed`: the request can be read, but not accepted; `details` names each member.",
    401: "No valid key or signature.",
    403: "The key lacks the scope, or the caller the role.",
    404: "There is no such thing in this account.",
    408: "The body did not arrive in time: send it again, on a new connection.",
    409: "The state or use of the thing forbids it; or `idempotency_conflict`.",
    413: "The body is over 1 MB.",
    429: "Asked for too often: wait `Retry-After` seconds.",
    502: "What is behind this did not answer as it should.",
    503: "Something behind the API is away, or (`not_yet_in_force`) the change stands but is not known to be in force.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these errors, with those that any route can give."""
    return described(401, 403, 429, 503, *statuses)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these errors alone."""
    return {status: {"model": Failed, "description": _ERRORS[status]} for status in sorted(set(statuses))}


# What proves a signature reads the body, of a GET too.
READ = errors(400, 404, 408, 413)
WRITE = errors(400, 404, 408, 409, 413)
