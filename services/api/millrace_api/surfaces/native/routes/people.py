"""`/v1/people`."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import people
from millrace_api.application.people import PersonView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_core import ids
from millrace_web import scopes

router = APIRouter(prefix="/v1/people", tags=["People"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_PEOPLE)]
Manager = Annotated[Caller, caller(scopes.MANAGE_PEOPLE)]


@router.post("", status_code=201, response_model=One[PersonView], responses=answers.WRITE)
async def add_person(body: bodies.NewPerson, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Add somebody to the account. His role (owner, admin, member) bounds what keys that are made for him may."""
    async with once.changing(api) as doing:
        made = await people.add(
            doing.change,
            me.account,
            email=body.email,
            name=body.name,
            role=body.role,
            by=me,
            id=once.id_for(ids.PERSON),
        )
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Many[PersonView], responses=answers.READ)
async def list_people(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """Newest first."""
    below = listing.below_id(me.account, "people")
    async with api.database.asking() as tx:
        rows = await people.listed(tx, me.account, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, "people"))


@router.get("/{id}", response_model=One[PersonView], responses=answers.READ)
async def get_person(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await people.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[PersonView], responses=answers.WRITE)
async def update_person(id: str, body: bodies.PersonPatch, api: ApiHere, me: Manager) -> Response:
    """A new role holds for the person's keys at once. The last owner cannot become less."""
    async with api.changes.begin() as change:
        made = await people.update(change, me.account, id, body.named(), by=me)
    return answers.one(made, at=answers.position_of(change))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def remove_person(id: str, api: ApiHere, me: Manager) -> Response:
    """The person leaves, and all keys that were his end. 409 for the last owner."""
    async with api.changes.begin() as change:
        await people.remove(change, me.account, id, by=me)
    return answers.deleted(id, at=answers.position_of(change))
