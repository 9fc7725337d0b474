"""`/v1/keys`."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import keys
from millrace_api.application.keys import KeyView, NewKeyView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_web import scopes

router = APIRouter(prefix="/v1/keys", tags=["API keys"], route_class=StrictRoute)
Manager = Annotated[Caller, caller(scopes.MANAGE_KEYS)]


@router.post("", status_code=201, response_model=One[NewKeyView], responses=answers.WRITE)
async def create_key(body: bodies.NewKey, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Make a key. Its text (and secret, for keys that sign) is in this answer and never shown again."""
    async with once.changing(api) as doing:
        made = await keys.create(doing.change, me.account, body.wanted(), by=me, maker=api.keys)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Many[KeyView], responses=answers.READ)
async def list_keys(api: ApiHere, me: Manager, listing: ListingHere) -> Response:
    """All keys, newest first, revoked ones too."""
    below = listing.below_id(me.account, "keys")
    async with api.database.asking() as tx:
        rows = await keys.listed(tx, me.account, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, "keys"))


@router.get("/{id}", response_model=One[KeyView], responses=answers.READ)
async def get_key(id: str, api: ApiHere, me: Manager) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await keys.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[KeyView], responses=answers.WRITE)
async def rename_key(id: str, body: bodies.KeyPatch, api: ApiHere, me: Manager) -> Response:
    async with api.changes.begin() as change:
        made = await keys.rename(change, me.account, id, body.name, by=me)
    return answers.one(made, at=answers.position_of(change))


@router.post("/{id}/rotate", response_model=One[NewKeyView], responses=answers.WRITE)
async def rotate_key(
    id: str, api: ApiHere, me: Manager, once: OnceHere, body: bodies.KeyRotation | None = None
) -> Response:
    """A new text (and secret) for the key, shown this once; the one before is good for a grace period (24 h if not said
    otherwise)."""
    grace_s = (body or bodies.KeyRotation()).grace_s
    async with once.changing(api) as doing:
        made = await keys.rotate(doing.change, me.account, id, grace_s=grace_s, by=me, maker=api.keys)
        doing.answer = answers.one(made)
    return doing.answered()


@router.delete("/{id}", response_model=One[KeyView], responses=answers.WRITE)
async def revoke_key(id: str, api: ApiHere, me: Manager) -> Response:
    """End a key for ever: every gateway refuses it within a second. It stays in the list."""
    async with api.changes.begin() as change:
        ended = await keys.revoke(change, me.account, id, by=me)
    return answers.one(ended, at=answers.position_of(change))
