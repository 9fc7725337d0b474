"""`/v1/jobs` and `/v1/chains`: the same routes, but that a job has one step and a chain several in a line."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from millrace_api.application import plans, runs
from millrace_api.application.api import Api
from millrace_api.application.plans import Kind, PlanView
from millrace_api.surfaces import answers, run_bodies
from millrace_api.surfaces.answers import Deleted, Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import Once, OnceHere
from millrace_core import ids
from millrace_web import scopes
from millrace_web.positions import Position

jobs = APIRouter(prefix="/v1/jobs", tags=["Jobs"], route_class=StrictRoute)
chains = APIRouter(prefix="/v1/chains", tags=["Chains"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_JOBS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_JOBS)]
Starter = Annotated[Caller, caller(scopes.MANAGE_RUNS)]


class StartedRun(BaseModel):
    """A run that was asked for. Read it at `/v1/runs/{id}`."""

    id: str
    status: str


_RUN_BODY = run_bodies.described(seen_by="steps")


@jobs.post("", status_code=201, response_model=One[PlanView], responses=answers.WRITE)
async def create_job(body: bodies.NewJob, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    return await _create(api, me, once, "job", body.wanted())


@chains.post("", status_code=201, response_model=One[PlanView], responses=answers.WRITE)
async def create_chain(body: bodies.NewChain, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Steps in a line: each sees the outputs before it as `steps.<id>` and the last as `previous`."""
    return await _create(api, me, once, "chain", body.wanted())


@jobs.get("", response_model=Many[PlanView], responses=answers.READ)
async def list_jobs(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    return await _list(api, me, "job", listing)


@chains.get("", response_model=Many[PlanView], responses=answers.READ)
async def list_chains(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    return await _list(api, me, "chain", listing)


@jobs.get("/{id}", response_model=One[PlanView], responses=answers.READ)
async def get_job(id: str, api: ApiHere, me: Reader) -> Response:
    return await _get(api, me, "job", id)


@chains.get("/{id}", response_model=One[PlanView], responses=answers.READ)
async def get_chain(id: str, api: ApiHere, me: Reader) -> Response:
    return await _get(api, me, "chain", id)


@jobs.patch("/{id}", response_model=One[PlanView], responses=answers.WRITE)
async def update_job(id: str, body: bodies.JobPatch, api: ApiHere, me: Manager) -> Response:
    """Make the next version. Runs under way keep the version they began with."""
    return await _update(api, me, "job", id, body.named())


@chains.patch("/{id}", response_model=One[PlanView], responses=answers.WRITE)
async def update_chain(id: str, body: bodies.ChainPatch, api: ApiHere, me: Manager) -> Response:
    """Make the next version. Runs under way keep the version they began with."""
    return await _update(api, me, "chain", id, body.named())


@jobs.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_job(id: str, api: ApiHere, me: Manager) -> Response:
    """409 while subscriptions point at it. Runs under way go on."""
    return await _delete(api, me, "job", id)


@chains.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_chain(id: str, api: ApiHere, me: Manager) -> Response:
    """409 while subscriptions point at it. Runs under way go on."""
    return await _delete(api, me, "chain", id)


@jobs.post(
    "/{id}/run", status_code=202, response_model=One[StartedRun], responses=answers.WRITE, openapi_extra=_RUN_BODY
)
async def run_job(id: str, request: Request, api: ApiHere, me: Starter, once: OnceHere) -> Response:
    """Start a run by hand. Send the answer's `X-Millrace-Position` with the GET to be sure to find it."""
    return await _run(api, me, once, "job", id, await request.body())


@chains.post(
    "/{id}/run", status_code=202, response_model=One[StartedRun], responses=answers.WRITE, openapi_extra=_RUN_BODY
)
async def run_chain(id: str, request: Request, api: ApiHere, me: Starter, once: OnceHere) -> Response:
    """Start a run by hand. Send the answer's `X-Millrace-Position` with the GET to be sure to find it."""
    return await _run(api, me, once, "chain", id, await request.body())


async def _create(api: Api, me: Caller, once: Once, kind: Kind, wanted: plans.Wanted) -> Response:
    async with once.changing(api) as doing:
        made = await plans.create(doing.change, me.account, kind, wanted, egress=api.egress)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


async def _list(api: Api, me: Caller, kind: Kind, listing: ListingHere) -> Response:
    below = listing.below_id(me.account, kind)
    async with api.database.asking() as tx:
        rows = await plans.listed(tx, me.account, kind, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, kind))


async def _get(api: Api, me: Caller, kind: Kind, id: str) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await plans.get(tx, me.account, kind, id))


async def _update(api: Api, me: Caller, kind: Kind, id: str, named: dict[str, Any]) -> Response:
    async with api.changes.begin() as change:
        made = await plans.update(change, me.account, kind, id, named, egress=api.egress)
    return answers.one(made, at=answers.position_of(change))


async def _delete(api: Api, me: Caller, kind: Kind, id: str) -> Response:
    async with api.changes.begin() as change:
        await plans.delete(change, me.account, kind, id)
    return answers.deleted(id, at=answers.position_of(change))


async def _run(api: Api, me: Caller, once: Once, kind: Kind, id: str, body: bytes) -> Response:
    input = run_bodies.input_of(body, what="a run")
    async with once.holding(api) as holding:
        async with api.database.asking() as tx:
            plan = await plans.compiled(tx, me.account, kind, id)
        run = once.id_for(ids.RUN)
        started = await runs.start(api.log, me.account, plan, input=input, requested_by=me.id, id=run)
        holding.answer = answers.one(
            StartedRun(id=started.id, status=started.status).model_dump(),
            status=202,
            at=Position(started.place.topic, started.place.partition, started.place.offset),
        )
    return holding.answered()
