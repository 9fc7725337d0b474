"""`/v1/deliveries`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from millrace_api.application import deliveries, traces
from millrace_api.application.deliveries import DeliverySummary, DeliveryView
from millrace_api.application.traces import Trace
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller, micros
from millrace_web import scopes

router = APIRouter(
    prefix="/v1/deliveries", tags=["Deliveries"], route_class=StrictRoute, dependencies=[Depends(arrived)]
)
Reader = Annotated[Caller, caller(scopes.READ_DELIVERIES)]
Status = Annotated[str | None, Query(max_length=32, description=f"One of {', '.join(deliveries.STATUSES)}.")]
Webhook = Annotated[str | None, Query(max_length=64, description="Only deliveries to this webhook.")]
Event = Annotated[str | None, Query(max_length=64, description="Only deliveries of this event.")]


@router.get("", response_model=Many[DeliverySummary], responses=answers.READ)
async def list_deliveries(
    api: ApiHere,
    me: Reader,
    listing: ListingHere,
    status: Status = None,
    webhook: Webhook = None,
    event: Event = None,
) -> Response:
    """Newest first."""
    filter = deliveries.Filter(status, webhook, event)
    name = f"deliveries {filter}"
    below = listing.below(me.account, name)
    async with api.database.asking() as tx:
        rows = await deliveries.listed(tx, me.account, below=below, count=listing.count, filter=filter)
    return answers.many(listing.page(rows, me.account, name, lambda row: [micros(row.created_at), row.id]))


@router.get("/{id}", response_model=One[DeliveryView], responses=answers.READ)
async def get_delivery(id: str, api: ApiHere, me: Reader) -> Response:
    """A delivery with its body, byte for byte, and every attempt."""
    return answers.one(await api.found(lambda tx: deliveries.get(tx, me.account, id)))


@router.get("/{id}/trace", response_model=One[Trace], responses=answers.READ)
async def trace_delivery(id: str, api: ApiHere, me: Reader) -> Response:
    """The whole story of a delivery in order; and why it waits, if it is not over."""
    return answers.one(await api.found(lambda tx: traces.of_delivery(tx, me.account, id)))
