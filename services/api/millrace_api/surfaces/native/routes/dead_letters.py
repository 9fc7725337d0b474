"""`/v1/dead-letters`."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from millrace_api.application import dead_letters, redriving
from millrace_api.application.dead_letters import (
    Below,
    Counted,
    DeadLetterSummary,
    DeadLetterView,
    Filter,
    place_of,
)
from millrace_api.application.redriving import Asker, Redriven
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import (
    START,
    ApiHere,
    Caller,
    Listing,
    ListingHere,
    StrictRoute,
    arrived,
    caller,
    from_micros,
    micros,
)
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_core.clock import utc_now
from millrace_web import scopes

router = APIRouter(
    prefix="/v1/dead-letters", tags=["Dead letters"], route_class=StrictRoute, dependencies=[Depends(arrived)]
)
Reader = Annotated[Caller, caller(scopes.READ_EVENTS)]
Publisher = Annotated[Caller, caller(scopes.PUBLISH_EVENTS)]


def which(
    topic: Annotated[
        str | None,
        Query(max_length=64, description="Only records refused on this topic.", examples=["events"]),
    ] = None,
    reason: Annotated[
        str | None,
        Query(max_length=256, description="Only those whose reason contains this, in upper or lower case."),
    ] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those written at this time or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those written before this time.")] = None,
) -> Filter:
    """The letters this request is about."""
    return Filter(topic=topic, reason=reason, since=since, until=until)


Which = Annotated[Filter, Depends(which)]


@router.get("", response_model=Many[DeadLetterSummary], responses=answers.READ)
async def list_dead_letters(api: ApiHere, me: Reader, listing: ListingHere, only: Which) -> Response:
    """Records that could not be handled, newest first."""
    below = _below(listing, me.account, only.name)
    async with api.database.asking() as tx:
        rows = await dead_letters.listed(tx, me.account, below=below, count=listing.count, only=only)
    return answers.many(listing.page(rows, me.account, only.name, lambda row: [micros(row.at), *place_of(row)]))


@router.get("/count", response_model=One[Counted], responses=answers.READ)
async def count_dead_letters(api: ApiHere, me: Reader, only: Which) -> Response:
    """How many letters a filter means, counted up to 100,000; `exact` is false when there are more."""
    async with api.database.asking() as tx:
        return answers.one(await dead_letters.counted(tx, me.account, only=only))


@router.get("/{id}", response_model=One[DeadLetterView], responses=answers.READ)
async def get_dead_letter(id: str, api: ApiHere, me: Reader) -> Response:
    """A record as it was, with the reason why it was refused."""
    return answers.one(await api.found(lambda tx: dead_letters.get(tx, me.account, id)))


@router.post("/redrive", response_model=One[Redriven], responses=answers.WRITE)
async def redrive_dead_letters(body: bodies.LettersToRedrive, api: ApiHere, me: Publisher, once: OnceHere) -> Response:
    """Send dead letters again that were never sent again, oldest first, 1,000 at most: call again, under a new
    Idempotency-Key if any, while some are `left`. With `dry_run` none is sent."""
    asker = _asker(api, me, once.key)
    chosen = body.chosen(asker.now)
    if body.dry_run:
        async with api.database.asking() as tx:
            letters = await redriving.count(tx, me.account, chosen)
        return answers.one(Redriven(letters, written=0, refused=0, left=letters))
    async with once.holding(api) as holding:
        done = await redriving.many(api.database, api.log, asker, chosen)
        holding.answer = answers.one(done)
    return holding.answered()


_BEFORE: dict[int | str, dict[str, Any]] = {
    200: {"model": One[DeadLetterView], "description": "It was sent again before, and nothing was done now."}
}


@router.post("/{id}/redrive", status_code=202, response_model=One[DeadLetterView], responses=answers.WRITE | _BEFORE)
async def redrive_dead_letter(id: str, api: ApiHere, me: Publisher, once: OnceHere) -> Response:
    """Send a dead letter again: once without an Idempotency-Key (200 and nothing more when it was before), and once
    more for each. 409 when its kind cannot be."""
    async with once.holding(api) as holding:
        letter, is_new = await redriving.one(api.database, api.log, _asker(api, me, once.key), id)
        holding.answer = answers.one(letter, status=202 if is_new else 200)
    return holding.answered()


def _asker(api: ApiHere, me: Caller, key: str | None) -> Asker:
    now = utc_now(api.clock)
    return Asker(me.account, me.id, now, redriving.ONCE if key is None else key)


def _below(listing: Listing, account: str, name: str) -> Below:
    at = listing.cursors.after(listing.query, account=account, listing=name)
    if at is None:
        first: datetime = START[0]
        return first, "", 0, 0
    return from_micros(int(at[0])), str(at[1]), int(at[2]), int(at[3])
