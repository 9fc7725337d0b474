"""`/v1/dead-letters`."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from millrace_api.application import dead_letters
from millrace_api.application.dead_letters import Below, DeadLetterSummary, DeadLetterView, place_of
from millrace_api.surfaces.native import answers
from millrace_api.surfaces.native.answers import Many, One
from millrace_api.surfaces.native.calls import (
    START,
    ApiHere,
    Caller,
    Listing,
    ListingHere,
    NativeRoute,
    arrived,
    caller,
    from_micros,
    micros,
)
from millrace_web import scopes

router = APIRouter(
    prefix="/v1/dead-letters", tags=["Dead letters"], route_class=NativeRoute, dependencies=[Depends(arrived)]
)
Reader = Annotated[Caller, caller(scopes.READ_EVENTS)]
LISTING = "dead letters"


@router.get("", response_model=Many[DeadLetterSummary], responses=answers.READ)
async def list_dead_letters(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """Records that could not be handled, newest first."""
    async with api.database.asking() as tx:
        rows = await dead_letters.listed(tx, me.account, below=_below(listing, me.account), count=listing.count)
    return answers.many(listing.page(rows, me.account, LISTING, lambda row: [micros(row.at), *place_of(row)]))


@router.get("/{id}", response_model=One[DeadLetterView], responses=answers.READ)
async def get_dead_letter(id: str, api: ApiHere, me: Reader) -> Response:
    """A record as it was, with the reason why it was refused."""
    return answers.one(await api.found(lambda tx: dead_letters.get(tx, me.account, id)))


def _below(listing: Listing, account: str) -> Below:
    at = listing.cursors.after(listing.query, account=account, listing=LISTING)
    if at is None:
        first: datetime = START[0]
        return first, "", 0, 0
    return from_micros(int(at[0])), str(at[1]), int(at[2]), int(at[3])
