"""`/v1/tickets`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from millrace_api.application import entities
from millrace_api.application.entities import Entity, Filter, Safe
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller
from millrace_api.surfaces.ops import answers, things
from millrace_api.surfaces.ops.answers import Many
from millrace_store.pool import Connection
from millrace_web import scopes

router = APIRouter(prefix="/v1/tickets", tags=["Tickets"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_TICKETS)]


@router.get("", response_model=Many[things.Ticket], responses=answers.READ)
async def list_tickets(
    api: ApiHere,
    me: Reader,
    listing: ListingHere,
    status: things.Status = None,
    customer: Annotated[str | None, things.text("Only those of the customer with this id.", "421")] = None,
    priority: Annotated[str | None, things.text("Only those of this priority.", "high")] = None,
    assignee: Annotated[str | None, things.text("Only those of this assignee.")] = None,
    created_from: things.CreatedFrom = None,
    created_to: things.CreatedTo = None,
    updated_from: things.UpdatedFrom = None,
    updated_to: things.UpdatedTo = None,
    search: things.Search = None,
) -> Response:
    """Newest first. What is shown of each is what the account lets be read. Send the `X-Millrace-Position` of a post to
    see what it told."""
    filter = Filter(status, customer, priority, assignee, created_from, created_to, updated_from, updated_to, search)
    name = f"tickets {filter}"
    below = things.below(listing, me.account, name)
    async with api.database.reading() as tx:
        rows = await entities.listed(tx, me.account, "ticket", below=below, count=listing.count, filter=filter)
        safe = await entities.safe_of(tx, me.account)
    return answers.many(things.page(listing, rows, me.account, name, safe))


@router.get("/{id}", response_model=things.Ticket, responses=answers.READ)
async def get_ticket(id: things.Id, api: ApiHere, me: Reader) -> Response:
    """One ticket."""

    async def read(tx: Connection) -> tuple[Entity, Safe]:
        return await entities.get(tx, me.account, "ticket", id), await entities.safe_of(tx, me.account)

    ticket, safe = await api.found(read)
    return answers.one(ticket.shown(safe))
