"""`/v1/receipts`, and the receipts of events, runs and deliveries.

The proof is open to anyone: it must be worth something to who has no key. It has a rate of its own for that.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from millrace_api.application import receipts
from millrace_api.application.receipts import Proof, Receipt, RootView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import (
    START,
    ApiHere,
    Caller,
    ListingHere,
    StrictRoute,
    arrived,
    caller,
    from_micros,
    micros,
    open_to_all,
)
from millrace_web import scopes

router = APIRouter(prefix="/v1", tags=["Receipts"], route_class=StrictRoute, dependencies=[Depends(arrived)])
public = APIRouter(
    prefix="/v1/receipts", tags=["Receipts"], route_class=StrictRoute, dependencies=[Depends(open_to_all)]
)
EventReader = Annotated[Caller, caller(scopes.READ_EVENTS)]
RunReader = Annotated[Caller, caller(scopes.READ_RUNS)]
DeliveryReader = Annotated[Caller, caller(scopes.READ_DELIVERIES)]
LISTING = "receipts"
HASH = r"^[0-9a-f]{64}$"


@router.get("/receipts", response_model=Many[RootView], responses=answers.READ)
async def list_receipts(api: ApiHere, me: EventReader, listing: ListingHere) -> Response:
    """The root of each day that is closed and had facts, newest first."""
    at = listing.cursors.after(listing.query, account=me.account, listing=LISTING)
    below = START[0] if at is None else from_micros(int(at[0]))
    async with api.database.asking() as tx:
        rows = await receipts.listed(tx, me.account, below=below, count=listing.count)
    return answers.many(listing.page(rows, me.account, LISTING, lambda row: [micros(row.day)]))


@router.get("/events/{id}/receipt", response_model=One[Receipt], responses=answers.READ)
async def get_receipt_of_event(id: str, api: ApiHere, me: EventReader) -> Response:
    """What proves that the facts about an event (each says what came of it) stand in the roots of their days."""
    return answers.one(await api.found(lambda tx: receipts.of_event(tx, me.account, id)))


@router.get("/runs/{id}/receipt", response_model=One[Receipt], responses=answers.READ)
async def get_receipt_of_run(id: str, api: ApiHere, me: RunReader) -> Response:
    """The same for a run: its beginning, its steps' attempts and its end."""
    return answers.one(await api.found(lambda tx: receipts.of_run(tx, me.account, id)))


@router.get("/deliveries/{id}/receipt", response_model=One[Receipt], responses=answers.READ)
async def get_receipt_of_delivery(id: str, api: ApiHere, me: DeliveryReader) -> Response:
    """The same for a delivery: each attempt and how it ended."""
    return answers.one(await api.found(lambda tx: receipts.of_delivery(tx, me.account, id)))


@public.get("/{root}/proof", response_model=One[Proof], responses=answers.PUBLIC)
async def prove_leaf(
    api: ApiHere,
    root: Annotated[str, Path(pattern=HASH, description="Of a day, from a receipt.")],
    leaf: Annotated[str, Query(pattern=HASH, description="Of a fact, from a receipt.")],
    index: Annotated[int, Query(ge=0, lt=2**63, description="Where the leaf stands, from a receipt.")],
) -> Response:
    """Proves to anyone that a leaf stands in the tree with this root. Needs no key, and tells nothing but hashes and
    numbers, and these only to who knows the leaf: 404 for any other."""
    async with api.database.reading() as tx:
        return answers.one(await receipts.prove(tx, bytes.fromhex(root), index, bytes.fromhex(leaf)))
