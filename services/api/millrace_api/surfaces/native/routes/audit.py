"""`/v1/audit`: for owners alone."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from starlette.responses import Response, StreamingResponse

from millrace_api.application import audit
from millrace_api.application.audit import AuditView, Filter
from millrace_api.application.problems import Forbidden
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import START, ApiHere, Caller, ListingHere, StrictRoute, arrived, caller, micros
from millrace_api.surfaces.ops.actors import OWNER, actor_of
from millrace_core import limits
from millrace_web import scopes

router = APIRouter(prefix="/v1/audit", tags=["Audit"], route_class=StrictRoute, dependencies=[Depends(arrived)])
Key = Annotated[Caller, caller(scopes.READ_AUDIT)]
Text = Annotated[str | None, Query(max_length=limits.ACTION_NAME_CHARS_MAX, pattern=r"^[^\x00]*$")]


def owner(me: Key) -> Caller:
    """The key, if it is an owner's. Raises Forbidden."""
    if actor_of(me).role != OWNER:
        raise Forbidden("Only an owner may read the audit.")
    return me


Owner = Annotated[Caller, Depends(owner)]


def filter_of(
    kind: Annotated[str | None, Query(max_length=32, description=f"One of {', '.join(audit.KINDS)}.")] = None,
    actor: Text = None,
    action: Text = None,
    outcome: Text = None,
    run: Text = None,
    since: Annotated[AwareDatetime | None, Query(description="From this moment on.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before this moment.")] = None,
) -> Filter:
    """Which entries are asked for."""
    return Filter(kind, actor, action, outcome, run, since, until)


Filtered = Annotated[Filter, Depends(filter_of)]


@router.get("", response_model=Many[AuditView], responses=answers.READ)
async def list_audit(api: ApiHere, me: Owner, listing: ListingHere, filter: Filtered) -> Response:
    """What was asked, decided and done, newest first: prompts, how they were understood, calls, yes and no, results."""
    name = f"audit {filter}"
    below = listing.below(me.account, name)
    async with api.database.asking() as tx:
        rows = await audit.listed(tx, me.account, below=below, count=listing.count, filter=filter)
    return answers.many(listing.page(rows, me.account, name, lambda row: [micros(row.at), row.id]))


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **answers.errors(400)},
)
async def export_audit(api: ApiHere, me: Owner, filter: Filtered) -> Response:
    """All of it as CSV, newest first. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    rows = audit.as_csv(api.database.patient, me.account, below=START, filter=filter)
    # The first piece is made here: what is wrong with the filter is an answer, not a broken stream.
    first = await anext(rows)
    headers = {"content-disposition": 'attachment; filename="audit.csv"', "cache-control": "no-store"}
    return StreamingResponse(_joined(first, rows), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/{id}", response_model=One[AuditView], responses=answers.READ)
async def get_audit_entry(id: str, api: ApiHere, me: Owner) -> Response:
    return answers.one(await api.found(lambda tx: audit.get(tx, me.account, id)))


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
