"""`/v1/safe-fields`."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millrace_api.application import entities
from millrace_api.application.entities import SafeFieldsView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import One
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_core.clock import utc_now
from millrace_core.entities import Kind
from millrace_web import scopes

router = APIRouter(prefix="/v1/safe-fields", tags=["Customers"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_CUSTOMERS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_CUSTOMERS)]


class SafeFields(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"fields": ["name", "email", "plan"]}]})

    fields: list[Annotated[str, Field(max_length=64)]] = Field(
        description="All that may be read of a thing of this kind beside its id and times; nothing = []."
    )


@router.get("", response_model=One[list[SafeFieldsView]], responses=answers.READ)
async def list_safe_fields(api: ApiHere, me: Reader) -> Response:
    """What the ops surface shows of customers, tickets, invoices and subscriptions, kind by kind."""
    async with api.database.asking() as tx:
        return answers.one(await entities.safe_fields(tx, me.account))


@router.put("/{kind}", response_model=One[list[SafeFieldsView]], responses=answers.WRITE)
async def set_safe_fields(kind: Kind, body: SafeFields, api: ApiHere, me: Manager) -> Response:
    """Show these fields of a kind and no others. Holds for the next read."""
    async with api.database.writing() as tx:
        await entities.set_safe_fields(tx, me.account, kind, body.fields, now=utc_now(api.clock))
        return answers.one(await entities.safe_fields(tx, me.account))


@router.delete("/{kind}", response_model=One[list[SafeFieldsView]], responses=answers.WRITE)
async def reset_safe_fields(kind: Kind, api: ApiHere, me: Manager) -> Response:
    """Show what is shown if nothing is set."""
    async with api.database.writing() as tx:
        await entities.set_safe_fields(tx, me.account, kind, None, now=utc_now(api.clock))
        return answers.one(await entities.safe_fields(tx, me.account))
