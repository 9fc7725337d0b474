"""`/connectors/{public id}/webhook`: where other platforms post to. No key: the connector checks who it is.

The rate of the address comes first, in this process: over it no body is read, nothing is looked up, no secret opened.
"""

import contextlib
import hashlib
import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from millrace_api.application import connections
from millrace_api.application.api import Api
from millrace_api.application.connecting import Connection, NotAnswered
from millrace_api.application.connections import Outcome
from millrace_api.application.problems import NotFound, Problem
from millrace_api.surfaces.calls import OPEN_PLAN, ApiHere, open_to_all
from millrace_api.surfaces.ops import answers
from millrace_api.surfaces.ops.routes.connectors import here
from millrace_core import limits
from millrace_core.clock import utc_now
from millrace_core.connectors import Inbound, Refusal
from millrace_core.errors import Reject
from millrace_web.caller_rates import note
from millrace_web.errors import ApiError, unavailable

router = APIRouter(prefix="/connectors", tags=["Connectors"])
RETRY_AFTER_S = 5
# So that nobody can choose an address that shares somebody's count.
_SALT = secrets.token_bytes(16)


class Received(BaseModel):
    """What the connector answers instead, where its platform wants an answer of its own."""

    model_config = ConfigDict(extra="allow")

    received: bool = True
    events: int = 0


PublicId = Annotated[str, Path(pattern="^cn_[0-9a-f]{32}$", examples=[f"cn_{'0' * 32}"])]


@router.post(
    "/{public_id}/webhook",
    response_model=Received,
    responses=answers.described(400, 401, 404, 408, 413, 429, 503),
    openapi_extra={"requestBody": {"content": {"*/*": {"schema": {}}}}},
)
async def receive_webhook(public_id: PublicId, request: Request, api: ApiHere) -> Response:
    """A webhook of another platform, as it sends it. Its events are on the log when this is answered. 401 or 400 when
    the connector refuses it; 503 when the connector fails, so that the platform sends it again."""
    note(request.scope, request.app.state.open_rate.take(f"connection {_count_of(public_id)}", OPEN_PLAN))
    body = await request.body()
    try:
        async with api.database.asking() as tx:
            connection = await connections.find(tx, here(api), public_id)
    except NotFound:
        open_to_all(request)
        raise
    query = request.scope["query_string"].decode("latin-1")
    inbound = Inbound(request.method, dict(request.headers), query, body)
    now_ms = api.clock.now_ms()
    try:
        handled = await connections.handle(here(api), connection, inbound, now_ms=now_ms)
    except NotAnswered as error:
        await _counted(api, connection, error.how, error=str(error))
        raise _later() from error
    if isinstance(handled, Refusal):
        await _counted(api, connection, "refused", error=handled.message)
        raise ApiError(handled.status, handled.message)
    try:
        if handled.events:
            await api.log.write(connections.outputs(connection, handled, now_ms=now_ms))
    except Reject as error:
        await _counted(api, connection, "failed", error=str(error))
        raise _later() from error
    await _counted(api, connection, "handled", events=len(handled.events))
    said = {"received": True, "events": len(handled.events)} if handled.answer is None else handled.answer
    return answers.one(said)


def _count_of(public_id: str) -> int:
    """Which count this address has, whether anything is there or not."""
    digest = hashlib.blake2b(public_id.encode(), key=_SALT, digest_size=8).digest()
    return int.from_bytes(digest) % limits.CONNECTION_COUNTS


def _later() -> ApiError:
    return unavailable("This webhook cannot be handled right now: send it again.", retry_after_s=RETRY_AFTER_S)


async def _counted(
    api: Api, connection: Connection, outcome: Outcome, *, events: int = 0, error: str | None = None
) -> None:
    """Counts are for people: that one cannot be kept changes nothing of what was done."""
    with contextlib.suppress(Problem):
        async with api.database.asking() as tx:
            await connections.count(tx, connection, outcome, events=events, error=error, now=utc_now(api.clock))
