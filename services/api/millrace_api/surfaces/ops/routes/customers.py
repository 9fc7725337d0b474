"""`/v1/customers`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from millrace_api.application import customers, entities
from millrace_api.application.customers import Customer
from millrace_api.application.entities import Filter, Safe
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller
from millrace_api.surfaces.ops import answers, things
from millrace_api.surfaces.ops.answers import Many
from millrace_store.pool import Connection
from millrace_web import scopes

router = APIRouter(prefix="/v1/customers", tags=["Customers"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_CUSTOMERS)]


@router.get("", response_model=Many[things.Customer], responses=answers.READ)
async def list_customers(
    api: ApiHere,
    me: Reader,
    listing: ListingHere,
    status: things.Status = None,
    search: things.Search = None,
    created_from: things.CreatedFrom = None,
    created_to: things.CreatedTo = None,
    updated_from: things.UpdatedFrom = None,
    updated_to: things.UpdatedTo = None,
) -> Response:
    """Newest first. What is shown of each is what the account lets be read."""
    filter = Filter(
        status=status,
        search=search,
        created_from=created_from,
        created_to=created_to,
        updated_from=updated_from,
        updated_to=updated_to,
    )
    name = f"customers {filter}"
    below = things.below(listing, me.account, name)
    async with api.database.reading() as tx:
        rows = await entities.listed(tx, me.account, "customer", below=below, count=listing.count, filter=filter)
        safe = await entities.safe_of(tx, me.account)
    return answers.many(things.page(listing, rows, me.account, name, safe))


@router.get("/{id}", response_model=things.WholeCustomer, responses=answers.READ)
async def get_customer(id: things.Id, api: ApiHere, me: Reader) -> Response:
    """A customer with subscriptions, the latest invoice and how many tickets are open. What was posted before this is
    asked is in the answer."""

    async def read(tx: Connection) -> tuple[Customer, Safe]:
        return await customers.get(tx, me.account, id), await entities.safe_of(tx, me.account)

    customer, safe = await api.found(read)
    return answers.one(customer.shown(safe))
