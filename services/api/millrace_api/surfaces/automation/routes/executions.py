"""`/v1/executions`, and those of one workflow."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from millrace_api.application import executions, workflows
from millrace_api.application.api import Api
from millrace_api.application.executions import ExecutionSummary, ExecutionView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.automation.routes.workflows import ALIAS
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, arrived, caller, micros
from millrace_web import scopes
from millrace_web.paging import Page

_every = APIRouter(tags=["Executions"], route_class=StrictRoute, dependencies=[Depends(arrived)])
_of_workflow = APIRouter(tags=["Executions"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Reader = Annotated[Caller, caller(scopes.READ_EXECUTIONS)]
Status = Annotated[executions.Status | None, Query(description="Only executions of this status.")]
Since = Annotated[datetime | None, Query(alias="from", description="Asked for then or later (ISO 8601).")]
Until = Annotated[datetime | None, Query(alias="to", description="Asked for before, or just then (ISO 8601).")]


@_every.get("", response_model=Many[ExecutionSummary], responses=answers.READ)
async def list_executions(
    api: ApiHere, me: Reader, listing: ListingHere, status: Status = None, since: Since = None, until: Until = None
) -> Response:
    """Newest first, of all workflows (and jobs, and chains)."""
    return answers.many(await _page(api, me, listing, None, status, since, until))


@_every.get("/{id}", response_model=One[ExecutionView], responses=answers.READ)
async def get_execution(id: str, api: ApiHere, me: Reader) -> Response:
    """An execution with its output and its log."""
    return answers.one(await api.found(lambda tx: executions.get(tx, me.account, id)))


@_of_workflow.get("/{id}/executions", response_model=Many[ExecutionSummary], responses=answers.READ)
async def list_executions_of_workflow(
    id: str,
    api: ApiHere,
    me: Reader,
    listing: ListingHere,
    status: Status = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """Newest first."""
    async with api.database.asking() as tx:
        await workflows.get(tx, me.account, id)
    return answers.many(await _page(api, me, listing, id, status, since, until))


async def _page(
    api: Api,
    me: Caller,
    listing: ListingHere,
    workflow: str | None,
    status: executions.Status | None,
    since: datetime | None,
    until: datetime | None,
) -> Page[ExecutionSummary]:
    since, until = _aware(since), _aware(until)
    name = f"executions {workflow} {status} {since} {until}"
    below = listing.below(me.account, name)
    async with api.database.asking() as tx:
        rows = await executions.listed(
            tx,
            me.account,
            below=below,
            count=listing.count,
            workflow=workflow,
            status=status,
            since=since,
            until=until,
        )
    page = listing.page(rows, me.account, name, lambda row: [micros(row[0][0]), row[1].id])
    return Page([summary for _, summary in page.items], page.next_cursor)


def _aware(at: datetime | None) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)


router = APIRouter()
router.include_router(_every, prefix="/v1/executions")
router.include_router(_of_workflow, prefix="/v1/workflows")
router.include_router(_of_workflow, prefix=ALIAS, include_in_schema=False)
