"""`/v1/events/replay` and `/v1/replays`."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import replays
from millrace_api.application.replays import Counted, ReplayView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_core.clock import utc_now
from millrace_web import scopes

router = APIRouter(prefix="/v1", tags=["Replays"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_EVENTS)]
Publisher = Annotated[Caller, caller(scopes.PUBLISH_EVENTS)]
LISTING = "replays"


_COUNTED: dict[int | str, dict[str, Any]] = {200: {"model": One[Counted], "description": "How many, with `dry_run`."}}


@router.post("/events/replay", status_code=202, response_model=One[ReplayView], responses=answers.WRITE | _COUNTED)
async def replay_events(body: bodies.NewReplay, api: ApiHere, me: Publisher, once: OnceHere) -> Response:
    """Write past events to the log again, to one subscription or to all. With `dry_run` nothing is written nor kept
    for the Idempotency-Key, and the answer (200) is how many it would be."""
    wanted = body.wanted()
    if body.dry_run:
        await api.arrivals.caught_up()
        counted = await replays.count(api.database, me.account, wanted, now=_now(api), clock=api.clock.monotonic)
        return answers.one(counted)
    async with once.changing(api) as doing:
        made = await replays.create(doing.tx, me.account, wanted, now=_now(api), requested_by=me.id)
        doing.answer = answers.one(made, status=202)
    return doing.answered()


@router.get("/replays", response_model=Many[ReplayView], responses=answers.READ)
async def list_replays(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """Newest first."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.asking() as tx:
        rows = await replays.listed(tx, me.account, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, LISTING))


@router.get("/replays/{id}", response_model=One[ReplayView], responses=answers.READ)
async def get_replay(id: str, api: ApiHere, me: Reader) -> Response:
    """How far it has come."""
    async with api.database.asking() as tx:
        return answers.one(await replays.get(tx, me.account, id))


@router.post("/replays/{id}/cancel", response_model=One[ReplayView], responses=answers.WRITE)
async def cancel_replay(id: str, api: ApiHere, me: Publisher, once: OnceHere) -> Response:
    """End a replay; 409 when it is over. What it has written already goes its way."""
    async with once.changing(api) as doing:
        ended = await replays.cancel(doing.tx, me.account, id, now=_now(api), requested_by=me.id)
        doing.answer = answers.one(ended)
    return doing.answered()


def _now(api: ApiHere) -> datetime:
    return utc_now(api.clock)
