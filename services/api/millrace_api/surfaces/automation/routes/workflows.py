"""`/v1/workflows`, and `/api/workflows`, by which the automation document's own snippet asks for the same."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from millrace_api.application import runs, workflows
from millrace_api.application.problems import Invalid
from millrace_api.application.workflows import VersionView, WorkflowSummary, WorkflowView
from millrace_api.surfaces import answers, run_bodies
from millrace_api.surfaces.answers import Deleted, Many, Numbered, One
from millrace_api.surfaces.automation import bodies
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, NumberedHere, StrictRoute, caller
from millrace_api.surfaces.once import OnceHere
from millrace_core import ids
from millrace_core.clock import utc_now
from millrace_web import scopes
from millrace_web.positions import Position

ALIAS = "/api/workflows"
_routes = APIRouter(tags=["Workflows"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_WORKFLOWS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_WORKFLOWS)]
Starter = Annotated[Caller, caller(scopes.MANAGE_EXECUTIONS)]
Status = Annotated[workflows.Status | None, Query(description="Only drafts, or only what is published.")]
Search = Annotated[
    str | None, Query(min_length=1, max_length=200, description="Only names that contain it, in upper or lower case.")
]


class StartedExecution(BaseModel):
    """An execution that was asked for. Read it at `/v1/executions/{id}`. `test` = of what was never published."""

    execution_id: str
    status: str
    started_at: str
    test: bool


_EXECUTE_BODY = run_bodies.described(
    seen_by="nodes", example={"input": {"email": "user@example.com", "name": "John Doe"}}
)


@_routes.get("", response_model=Numbered[WorkflowSummary], responses=answers.READ)
async def list_workflows(
    api: ApiHere, me: Reader, listing: NumberedHere, status: Status = None, search: Search = None
) -> Response:
    """Newest first, by page or by cursor."""
    if search is not None and "\0" in search:
        raise Invalid("must not hold the character U+0000", where="search")
    name = f"workflows {status} {search}"
    below = listing.below_id(me.account, name)
    async with api.database.reading() as tx:
        rows = await workflows.listed(
            tx,
            me.account,
            below=below,
            count=listing.count,
            skipped=listing.skipped,
            status=status,
            search=search,
        )
        total = await workflows.total(tx, me.account, status=status, search=search)
    page = listing.by_id(rows, me.account, name)
    return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)


@_routes.post("", status_code=201, response_model=One[WorkflowView], responses=answers.WRITE)
async def create_workflow(body: bodies.NewWorkflow, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """A draft, which may have no nodes yet; with `status: published` its first version at once."""
    async with once.changing(api) as doing:
        made = await workflows.create(doing.change, me.account, body.wanted(), status=body.status, egress=api.egress)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@_routes.get("/{id}", response_model=One[WorkflowView], responses=answers.READ)
async def get_workflow(id: str, api: ApiHere, me: Reader) -> Response:
    """As it was saved last; `has_draft` says whether that is published."""
    async with api.database.asking() as tx:
        return answers.one(await workflows.get(tx, me.account, id))


@_routes.patch("/{id}", response_model=One[WorkflowView], responses=answers.WRITE)
async def update_workflow(id: str, body: bodies.WorkflowPatch, api: ApiHere, me: Manager) -> Response:
    """Change the draft. With `status: published` it becomes the next version, and the one that events start; with
    `status: draft` no event starts the workflow any more. Executions under way keep what they began with."""
    async with api.changes.begin() as change:
        made = await workflows.update(
            change, me.account, id, body.wanted(), status=body.named().get("status"), egress=api.egress
        )
    return answers.one(made, at=answers.position_of(change))


@_routes.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_workflow(id: str, api: ApiHere, me: Manager) -> Response:
    """409 while subscriptions point at it. Executions under way go on."""
    async with api.changes.begin() as change:
        await workflows.delete(change, me.account, id)
    return answers.deleted(id, at=answers.position_of(change))


@_routes.get("/{id}/versions", response_model=Many[VersionView], responses=answers.READ)
async def list_workflow_versions(id: str, api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """What was published, newest first."""
    name = f"versions {id}"
    at = listing.cursors.after(listing.query, account=me.account, listing=name)
    async with api.database.reading() as tx:
        rows = await workflows.versions(
            tx, me.account, id, below=None if at is None else int(at[0]), count=listing.count
        )
    return answers.many(listing.page(rows, me.account, name, lambda row: [row.version]))


@_routes.post(
    "/{id}/execute",
    status_code=202,
    response_model=One[StartedExecution],
    responses=answers.WRITE,
    openapi_extra=_EXECUTE_BODY,
)
async def execute_workflow(id: str, request: Request, api: ApiHere, me: Starter, once: OnceHere) -> Response:
    """Run what was saved last; when that is not published, as a test. Send the answer's `X-Millrace-Position` with the
    GET to be sure to find it."""
    input = run_bodies.input_of(await request.body(), what="an execution")
    async with once.holding(api) as doing:
        async with api.database.asking() as tx:
            runnable = await workflows.runnable(tx, me.account, id)
        started = await runs.start(
            api.log, me.account, runnable.plan, input=input, requested_by=me.id, id=once.id_for(ids.RUN)
        )
        said = {
            "execution_id": started.id,
            "status": "running",
            "started_at": utc_now(api.clock),
            "test": runnable.is_test,
        }
        place = started.place
        doing.answer = answers.one(said, status=202, at=Position(place.topic, place.partition, place.offset))
    return doing.answered()


router = APIRouter()
router.include_router(_routes, prefix="/v1/workflows")
router.include_router(_routes, prefix=ALIAS, include_in_schema=False)
