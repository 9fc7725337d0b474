"""`/v1/runs`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from millrace_api.application import runs, traces
from millrace_api.application.runs import RunSummary, RunView
from millrace_api.application.traces import Trace
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller, micros
from millrace_api.surfaces.native.routes.plans import StartedRun
from millrace_api.surfaces.once import OnceHere
from millrace_web import scopes
from millrace_web.positions import Position

router = APIRouter(prefix="/v1/runs", tags=["Runs"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_RUNS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_RUNS)]
Status = Annotated[str | None, Query(max_length=32, description=f"One of {', '.join(runs.STATUSES)}.")]
Plan = Annotated[str | None, Query(max_length=64, description="Only runs of this job or chain.")]
Event = Annotated[str | None, Query(max_length=64, description="Only runs that this event started.")]
Subscription = Annotated[str | None, Query(max_length=64, description="Only runs that this subscription started.")]


@router.get("", response_model=Many[RunSummary], responses=answers.READ)
async def list_runs(
    api: ApiHere,
    me: Reader,
    listing: ListingHere,
    status: Status = None,
    plan: Plan = None,
    event: Event = None,
    subscription: Subscription = None,
) -> Response:
    """Newest first."""
    filter = runs.Filter(status, plan, event, subscription)
    name = f"runs {filter}"
    below = listing.below(me.account, name)
    async with api.database.asking() as tx:
        rows = await runs.listed(tx, me.account, below=below, count=listing.count, filter=filter)
    return answers.many(listing.page(rows, me.account, name, lambda row: [micros(row.created_at), row.id]))


@router.get("/{id}", response_model=One[RunView], responses=answers.READ)
async def get_run(id: str, api: ApiHere, me: Reader) -> Response:
    """A run with its input, output, steps and their attempts."""
    return answers.one(await api.found(lambda tx: runs.get(tx, me.account, id)))


@router.get("/{id}/trace", response_model=One[Trace], responses=answers.READ)
async def trace_run(id: str, api: ApiHere, me: Reader) -> Response:
    """The whole story of a run in order; and why it waits, if it is not over."""
    return answers.one(await api.found(lambda tx: traces.of_run(tx, me.account, id)))


@router.post("/{id}/cancel", status_code=202, response_model=One[StartedRun], responses=answers.WRITE)
async def cancel_run(id: str, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Ask for a run's end; 409 when it is over. A step that is under way outside is not called back."""
    async with once.holding(api) as holding:
        run = await api.found(lambda tx: runs.get(tx, me.account, id))
        asked = await runs.cancel(api.log, me.account, run, requested_by=me.id)
        holding.answer = answers.one(
            StartedRun(id=asked.id, status=asked.status).model_dump(),
            status=202,
            at=Position(asked.place.topic, asked.place.partition, asked.place.offset),
        )
    return holding.answered()
