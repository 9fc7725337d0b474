"""What native and automation routes answer: the automation envelope, written once, and its shape for the OpenAPI
document. `Json`, `again` and `position_of` serve every surface.

Times are ISO 8601 in UTC. JSON that came in as bytes (an event's properties) goes out as the same bytes.
"""

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace_api.application.changes import Change
from millrace_store.idempotency import Answer
from millrace_web import positions
from millrace_web.envelopes import AUTOMATION, JsonResponse
from millrace_web.idempotency import REPLAYED
from millrace_web.paging import Page
from millrace_web.positions import Position

T = TypeVar("T")
REPLAYED_BYTES = REPLAYED.lower().encode()


class Meta(BaseModel):
    """Empty but for lists."""


class ListMeta(BaseModel):
    next_cursor: str | None = Field(description="Send it as `cursor` to get the next page; null on the last.")
    has_more: bool


class NumberedMeta(ListMeta):
    page: int | None = Field(description="The page's number; null when it was asked for by a cursor.")
    limit: int
    total: int = Field(description="Of the whole list.")


class One(BaseModel, Generic[T]):
    success: Literal[True]
    data: T
    meta: Meta


class Many(BaseModel, Generic[T]):
    success: Literal[True]
    data: list[T]
    meta: ListMeta


class Numbered(BaseModel, Generic[T]):
    success: Literal[True]
    data: list[T]
    meta: NumberedMeta


class Part(BaseModel, Generic[T]):
    success: Literal[True]
    data: T
    meta: ListMeta


class ErrorBody(BaseModel):
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


class Json(JsonResponse):
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)


def one(data: object, *, status: int = 200, at: Position | None = None) -> Response:
    """One thing. `at` is where a write stands on the log."""
    return placed(Json(AUTOMATION.success(data, None), status_code=status), at=at)


def placed(answer: Response, *, at: Position | None) -> Response:
    """The answer to a write, with where it stands on the log."""
    if at is not None:
        answer.headers[positions.HEADER] = positions.render([at])
    return answer


def part(data: object, next_cursor: str | None) -> Response:
    """What one call found of something that may go on."""
    return Json(AUTOMATION.success(data, {"next_cursor": next_cursor, "has_more": next_cursor is not None}))


def many(page: Page[Any]) -> Response:
    """One page of a list."""
    return Json(AUTOMATION.success(page.items, page.meta))


def numbered(page: Page[Any], *, number: int | None, limit: int, total: int) -> Response:
    """One page of a list that is paged by number and by cursor."""
    return Json(AUTOMATION.success(page.items, {"page": number, "limit": limit, "total": total} | page.meta))


def deleted(id: str, *, at: Position | None) -> Response:
    """A thing that is gone."""
    return one({"id": id, "deleted": True}, at=at)


def again(answer: Answer) -> Response:
    """What the same request was answered before, byte for byte."""
    headers = {REPLAYED: "true"}
    return Response(answer.body, status_code=answer.status, media_type=Json.media_type, headers=headers)


def position_of(change: Change) -> Position | None:
    """Where a change stands on `control`; None when nothing changed."""
    return None if change.position is None else Position("control", 0, change.position - 1)


_ERRORS: Mapping[int, str] = {
    400: "The request can be read, but not accepted; `details` names each member.",
    401: "No valid API key.",
    403: "The key lacks the scope.",
    404: "There is no such thing in this account.",
    408: "The body did not arrive in time: send it again, on a new connection.",
    409: "The state or use of the thing forbids it.",
    413: "The body is over 1 MB.",
    429: "Asked for too often: wait `Retry-After` seconds.",
    503: "Something behind the API is away, or (`NOT_YET_IN_FORCE`) the change stands but is not known to be in force.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of these errors, with those that any route can give."""
    return _described(401, 403, 429, 503, *statuses)


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failed, "description": _ERRORS[status]} for status in sorted(statuses)}


READ = errors(400, 404)
OPEN_WRITE = _described(400, 403, 408, 409, 413, 429, 503)
"""Of a route by which anyone may make something, without a key."""
WRITE = errors(400, 404, 408, 409, 413)
PUBLIC = _described(400, 404, 429, 503)
"""Of a route that anyone may ask, without a key."""
