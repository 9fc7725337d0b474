"""`/v1/credentials`: values go in and never come out."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import credentials
from millrace_api.application.credentials import CredentialView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Numbered, One
from millrace_api.surfaces.automation.credential_bodies import CredentialPatch, NewCredential
from millrace_api.surfaces.calls import ApiHere, Caller, NumberedHere, StrictRoute, caller
from millrace_api.surfaces.once import OnceHere
from millrace_web import scopes

router = APIRouter(prefix="/v1/credentials", tags=["Credentials"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_CREDENTIALS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_CREDENTIALS)]
LISTING = "credentials"


@router.post("", status_code=201, response_model=One[CredentialView], responses=answers.WRITE)
async def create_credential(body: NewCredential, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Keep a value for `http` steps (`"credential": "its id or name"` in their config) and for integrations, encrypted.
    It is in no answer, not even this one."""
    async with once.changing(api) as doing:
        made = await credentials.create(doing.change, me.account, body.wanted(), ring=api.keys.ring)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Numbered[CredentialView], responses=answers.READ)
async def list_credentials(api: ApiHere, me: Reader, listing: NumberedHere) -> Response:
    """Newest first, by page or by cursor."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.reading() as tx:
        rows = await credentials.listed(tx, me.account, below=below, count=listing.count, skipped=listing.skipped)
        total = await credentials.total(tx, me.account)
    page = listing.by_id(rows, me.account, LISTING)
    return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)


@router.get("/{id}", response_model=One[CredentialView], responses=answers.READ)
async def get_credential(id: str, api: ApiHere, me: Reader) -> Response:
    """Without its value."""
    async with api.database.asking() as tx:
        return answers.one(await credentials.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[CredentialView], responses=answers.WRITE)
async def update_credential(id: str, body: CredentialPatch, api: ApiHere, me: Manager) -> Response:
    """Change the value, where it stands, or where it may be sent. It holds from the next attempt of any step on."""
    async with api.changes.begin() as change:
        made = await credentials.update(change, me.account, id, body.named(), ring=api.keys.ring)
    return answers.one(made, at=answers.position_of(change))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_credential(id: str, api: ApiHere, me: Manager) -> Response:
    """409, naming them, while a job, chain, workflow or integration uses it. Its value is erased."""
    async with api.changes.begin() as change:
        await credentials.delete(change, me.account, id)
    return answers.deleted(id, at=answers.position_of(change))
