"""`/v1/events`: reading. Posting is the gateway's (`/ingest/event/publish`)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from millrace_api.application import events, traces
from millrace_api.application.events import EventSummary, EventView
from millrace_api.application.traces import Trace
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller, micros
from millrace_web import scopes

router = APIRouter(prefix="/v1/events", tags=["Events"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_EVENTS)]
Identifier = Annotated[
    str | None, Query(max_length=256, description="Only events of this identifier.", examples=["e:github/push"])
]


@router.get("", response_model=Many[EventSummary], responses=answers.READ)
async def list_events(api: ApiHere, me: Reader, listing: ListingHere, identifier: Identifier = None) -> Response:
    """Newest first."""
    name = f"events {identifier}"
    below = listing.below(me.account, name)
    async with api.database.asking() as tx:
        rows = await events.listed(tx, me.account, below=below, count=listing.count, identifier=identifier)
    return answers.many(listing.page(rows, me.account, name, lambda row: [micros(row.received_at), row.id]))


@router.get("/{id}", response_model=One[EventView], responses=answers.READ)
async def get_event(id: str, api: ApiHere, me: Reader) -> Response:
    """An event with its properties, byte for byte, and what it started."""
    return answers.one(await api.found(lambda tx: events.get(tx, me.account, id)))


@router.get("/{id}/trace", response_model=One[Trace], responses=answers.READ)
async def trace_event(id: str, api: ApiHere, me: Reader) -> Response:
    """The whole story of an event in order, with what it started; and why what is not over waits."""
    return answers.one(await api.found(lambda tx: traces.of_event(tx, me.account, id)))
