"""`/v1/accounts/me`."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import accounts
from millrace_api.application.accounts import AccountView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import One
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_web import scopes

router = APIRouter(prefix="/v1/accounts", tags=["Account"], route_class=StrictRoute)
Anyone = Annotated[Caller, caller(None)]
Manager = Annotated[Caller, caller(scopes.MANAGE_KEYS)]


@router.get("/me", response_model=One[AccountView], responses=answers.errors())
async def get_my_account(api: ApiHere, me: Anyone) -> Response:
    """The account of the key that asks. Any key may."""
    async with api.database.asking() as tx:
        return answers.one(await accounts.get(tx, me.account))


@router.patch("/me", response_model=One[AccountView], responses=answers.WRITE)
async def update_my_account(body: bodies.AccountPatch, api: ApiHere, me: Manager) -> Response:
    async with api.changes.begin() as change:
        if "unordered" in body.model_fields_set:
            await accounts.set_unordered(change, me.account, body.unordered)
        if "retention_days" in body.model_fields_set:
            most = api.retention_days_max
            await accounts.set_retention(change.tx, me.account, body.retention_days, most=most)
        made = await accounts.get(change.tx, me.account)
    return answers.one(made, at=answers.position_of(change))
