"""`/v1/connectors`: an account's connections to other platforms."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.responses import Response

from millrace_api.application import connections
from millrace_api.application.actions import NewActionView
from millrace_api.application.api import Api
from millrace_api.application.connecting import Known
from millrace_api.application.connections import ConnectionView, Here, NewConnectionView, Wanted
from millrace_api.surfaces.answers import position_of
from millrace_api.surfaces.bodies import LEFT_OUT, Body, Patch
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.once import OnceHere
from millrace_api.surfaces.ops import answers
from millrace_api.surfaces.ops.answers import Deleted, Many
from millrace_core import limits
from millrace_core.clock import utc_now
from millrace_web import scopes
from millrace_web.paging import Page

router = APIRouter(prefix="/v1/connectors", tags=["Connectors"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_CONNECTORS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_CONNECTORS)]
Registrar = Annotated[Caller, caller(scopes.MANAGE_ACTIONS)]

Name = Annotated[str, Field(min_length=1, max_length=128, pattern="^[^\\u0000]*$")]
Url = Annotated[str, Field(max_length=limits.URL_CHARS_MAX, description="Of a remote connector: where it serves.")]
Secret = Annotated[str, Field(min_length=1, max_length=limits.CONNECTOR_SECRET_CHARS_MAX)]


class NewConnection(Body):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [{"connector": "stripe", "name": "Our Stripe", "secrets": {"webhook_secret": "whsec_…"}}]
        },
    )

    connector: Name = Field(description="Its name, see `/v1/connectors/available`; or `remote`.")
    name: Name = Field(description="Yours, to tell connections apart.")
    config: dict[str, Any] = Field(default_factory=dict, description="What the connector asks for.")
    secrets: dict[str, Secret] = Field(default_factory=dict, description="Sealed, and never shown again.")
    url: Url | None = None
    enabled: bool = True


class ConnectionPatch(Patch):
    name: Name = LEFT_OUT
    config: dict[str, Any] = LEFT_OUT
    secrets: dict[str, Secret | None] = Field(
        default=LEFT_OUT, description="Those that are named are set, or taken away (null); the others stay."
    )
    url: Url | None = None
    enabled: bool = LEFT_OUT


@router.get("", response_model=Many[ConnectionView], responses=answers.READ)
async def list_connections(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    """The account's connections, newest first, with their health and counts."""
    below = listing.below_id(me.account, "connectors")
    async with api.database.asking() as tx:
        rows = await connections.listed(tx, here(api), me.account, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, "connectors"))


@router.get("/available", response_model=Many[Known], responses=answers.errors())
async def list_available(api: ApiHere, _: Reader) -> Response:
    """The connectors there are, and what each says of itself; `remote` is always there."""
    known = sorted(api.connecting.local.known(), key=lambda one: one.name)
    return answers.many(Page(known, None))


@router.post("", status_code=201, response_model=NewConnectionView, responses=answers.WRITE)
async def create_connection(body: NewConnection, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Connect to a platform. Have it post its webhooks to `webhook_path`. The connector is asked what it declares; if
    it fails at that, the connection is there all the same, and says so."""
    wanted = Wanted(**body.model_dump())
    prepared = await connections.prepare(here(api), me.account, wanted, now=utc_now(api.clock))
    async with once.changing(api) as doing:
        made = await connections.create(doing.change, here(api), me.account, prepared)
        doing.answer = answers.one(made, status=201)
    return doing.answered()


@router.get("/{id}", response_model=ConnectionView, responses=answers.READ)
async def get_connection(id: str, api: ApiHere, me: Reader) -> Response:
    """One connection."""
    async with api.database.asking() as tx:
        return answers.one(await connections.get(tx, here(api), me.account, id))


@router.patch("/{id}", response_model=ConnectionView, responses=answers.WRITE)
async def update_connection(id: str, body: ConnectionPatch, api: ApiHere, me: Manager) -> Response:
    """Change the members that are named; then the connector is asked anew."""
    named = body.named()
    async with api.database.asking() as tx:
        row = await connections.looked_up(tx, me.account, id)
    prepared = await connections.prepare_change(here(api), me.account, row, named, now=utc_now(api.clock))
    async with api.changes.begin() as change:
        made = await connections.update(change, here(api), me.account, prepared)
    return answers.one(made, at=position_of(change))


@router.post("/{id}/refresh", response_model=ConnectionView, responses=answers.WRITE)
async def refresh_connection(id: str, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Ask the connector anew what it declares."""
    async with api.database.asking() as tx:
        row = await connections.looked_up(tx, me.account, id)
    prepared = await connections.prepare_change(here(api), me.account, row, {}, now=utc_now(api.clock))
    async with once.changing(api) as doing:
        made = await connections.update(doing.change, here(api), me.account, prepared)
        doing.answer = answers.one(made)
    return doing.answered()


@router.post("/{id}/actions", response_model=Many[NewActionView], responses=answers.WRITE)
async def register_declared_actions(id: str, api: ApiHere, me: Registrar, once: OnceHere) -> Response:
    """Register the action contracts that the connector declared last: new ones, and new versions of those that it
    declares otherwise than they are registered. Only those are in the answer, new ones with their `secret`."""
    async with once.changing(api) as doing:
        made = await connections.register_actions(
            doing.change, me.account, id, registered_by=me.id, maker=api.keys, egress=api.egress
        )
        doing.answer = answers.many(Page(made, None))
    return doing.answered()


@router.delete("/{id}", response_model=Deleted, responses=answers.WRITE)
async def delete_connection(id: str, api: ApiHere, me: Manager) -> Response:
    """End the connection: its webhooks are answered 404 from now on. 409 while subscriptions of others point at the
    endpoint of its subscribers."""
    async with api.changes.begin() as change:
        await connections.delete(change, me.account, id)
    return answers.one({"id": id, "deleted": True}, at=position_of(change))


def here(api: Api) -> Here:
    """What it takes."""
    return Here(api.connecting, api.keys.ring, api.egress)
