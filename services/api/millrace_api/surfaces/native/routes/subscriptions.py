"""`/v1/subscriptions`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from millrace_api.application import subscriptions
from millrace_api.application.backtests import Report, Span
from millrace_api.application.subscriptions import SubscriptionView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Many, One, Part
from millrace_api.surfaces.calls import (
    ApiHere,
    Caller,
    CursorsHere,
    ListingHere,
    StrictRoute,
    caller,
    from_micros,
    micros,
)
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_core import ids
from millrace_web import scopes
from millrace_web.authentication import require
from millrace_web.paging import Cursors

router = APIRouter(prefix="/v1/subscriptions", tags=["Subscriptions"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_SUBSCRIPTIONS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_SUBSCRIPTIONS)]
EventReader = Annotated[Caller, caller(scopes.READ_EVENTS)]
TargetQuery = Annotated[str | None, Query(max_length=64, description="Only those of this job, chain or webhook.")]


@router.post("", status_code=201, response_model=One[SubscriptionView], responses=answers.WRITE)
async def create_subscription(body: bodies.NewSubscription, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Start a job, a chain or a delivery for each event that matches. Holds for every event published after this
    answer."""
    async with once.changing(api) as doing:
        made = await subscriptions.create(doing.change, me.account, body.wanted())
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Many[SubscriptionView], responses=answers.READ)
async def list_subscriptions(api: ApiHere, me: Reader, listing: ListingHere, target: TargetQuery = None) -> Response:
    name = f"subscriptions {target}"
    below = listing.below_id(me.account, name)
    async with api.database.asking() as tx:
        rows = await subscriptions.listed(tx, me.account, below=below, count=listing.count, target=target)
    return answers.many(listing.by_id(rows, me.account, name))


@router.post(
    "/backtest",
    response_model=Part[Report],
    responses=answers.WRITE,
    dependencies=[Depends(require(scopes.READ_SUBSCRIPTIONS))],
)
async def backtest_subscription(
    body: bodies.Backtest, api: ApiHere, me: EventReader, cursors: CursorsHere, once: OnceHere
) -> Response:
    """What a new or changed subscription would have matched, started and cost by the events of the last days, and what
    it matches otherwise than it does now. Sends nothing. Needs `read:events` and `read:subscriptions`. One call looks
    at 200,000 events or for 5 seconds; while `meta.has_more`, ask again with `cursor` and add up."""
    asked = body.asked()
    on = None if body.cursor is None else from_cursor(cursors, body.cursor, me.account, body.listing)
    async with once.holding(api) as holding:
        await api.arrivals.caught_up()
        report, rest = await api.backtests.report(me.account, asked, on=on)
        cursor = None if rest is None else to_cursor(cursors, rest, me.account, body.listing)
        holding.answer = answers.part(report, cursor)
    return holding.answered()


@router.get("/{id}", response_model=One[SubscriptionView], responses=answers.READ)
async def get_subscription(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await subscriptions.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[SubscriptionView], responses=answers.WRITE)
async def update_subscription(id: str, body: bodies.SubscriptionPatch, api: ApiHere, me: Manager) -> Response:
    async with api.changes.begin() as change:
        made = await subscriptions.update(change, me.account, id, body.named())
    return answers.one(made, at=answers.position_of(change))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_subscription(id: str, api: ApiHere, me: Manager) -> Response:
    """No event published after this answer matches it. What it started before goes on."""
    async with api.changes.begin() as change:
        await subscriptions.delete(change, me.account, id)
    return answers.deleted(id, at=answers.position_of(change))


def to_cursor(cursors: Cursors, rest: Span, account: str, listing: str) -> str:
    """The cursor that goes on from there."""
    at, id = rest.after
    return cursors.encode([micros(at), id.hex, micros(rest.until)], account=account, listing=listing)


def from_cursor(cursors: Cursors, cursor: str, account: str, listing: str) -> Span:
    """Where a cursor goes on. Raises ApiError 400 for one of another question."""
    at, id, until = cursors.decode(cursor, account=account, listing=listing)
    return Span((from_micros(int(at)), ids.uuid_of(f"{ids.EVENT}_{id}")), from_micros(int(until)))
