"""`/v1/accounts`: signing up, and the caller's own."""

from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import Response

from millrace_api.application import accounts, signing_up
from millrace_api.application.accounts import AccountView
from millrace_api.application.problems import Forbidden
from millrace_api.application.signing_up import SignedUp
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import One
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_core import limits
from millrace_web import scopes
from millrace_web.caller_rates import note
from millrace_web.rate_plans import SMALLEST

router = APIRouter(prefix="/v1/accounts", tags=["Account"], route_class=StrictRoute)
Anyone = Annotated[Caller, caller(None)]
Manager = Annotated[Caller, caller(scopes.MANAGE_KEYS)]


@router.post("", status_code=201, response_model=One[SignedUp], responses=answers.OPEN_WRITE)
async def sign_up(body: bodies.NewAccount, request: Request, api: ApiHere) -> Response:
    """Make an account, its owner and his first key, whose text is in this answer and never shown again. Needs no key;
    403 unless the deployment lets anyone sign up, 409 when the name is taken. All who ask share one small rate."""
    if api.sign_ups is None:
        raise Forbidden("Nobody can sign up here by himself: ask those who run it for an account.")
    note(request.scope, api.sign_ups.take("", SMALLEST.name))
    days = min(limits.RETENTION_DAYS_DEFAULT, api.retention_days_max)
    async with api.changes.begin() as change:
        made = await signing_up.sign_up(change, name=body.name, email=body.email, retention_days=days, maker=api.keys)
    return answers.one(made, status=201, at=answers.position_of(change))


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
        if "flow" in body.model_fields_set:
            await accounts.set_flow(change, me.account, None if body.flow is None else body.flow.written())
        if "retention_days" in body.model_fields_set:
            most = api.retention_days_max
            await accounts.set_retention(change.tx, me.account, body.retention_days, most=most)
        made = await accounts.get(change.tx, me.account)
    return answers.one(made, at=answers.position_of(change))
