"""`/v1/webhooks`."""

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from millrace_api.application import webhooks
from millrace_api.application.webhooks import EndpointView, NewEndpointView
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Many, One
from millrace_api.surfaces.calls import ApiHere, Caller, ListingHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_web import scopes

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_WEBHOOKS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_WEBHOOKS)]


@router.post("", status_code=201, response_model=One[NewEndpointView], responses=answers.WRITE)
async def create_webhook(body: bodies.NewWebhook, api: ApiHere, me: Manager) -> Response:
    """Deliver events to a URL, signed as Standard Webhooks. The secret is in this answer and never shown again."""
    async with api.changes.begin() as change:
        made = await webhooks.create(
            change, me.account, body.wanted(), secret=body.secret, ring=api.keys.ring, egress=api.egress
        )
    return answers.one(made, status=201, at=answers.position_of(change))


@router.get("", response_model=Many[EndpointView], responses=answers.READ)
async def list_webhooks(api: ApiHere, me: Reader, listing: ListingHere) -> Response:
    below = listing.below_id(me.account, "webhooks")
    async with api.database.asking() as tx:
        rows = await webhooks.listed(tx, me.account, below=below, count=listing.count)
    return answers.many(listing.by_id(rows, me.account, "webhooks"))


@router.get("/{id}", response_model=One[EndpointView], responses=answers.READ)
async def get_webhook(id: str, api: ApiHere, me: Reader) -> Response:
    async with api.database.asking() as tx:
        return answers.one(await webhooks.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[EndpointView], responses=answers.WRITE)
async def update_webhook(id: str, body: bodies.WebhookPatch, api: ApiHere, me: Manager) -> Response:
    """Change the members that are named. Enabling an endpoint that the platform disabled lets it begin anew."""
    async with api.changes.begin() as change:
        made = await webhooks.update(change, me.account, id, body.named(), egress=api.egress)
    return answers.one(made, at=answers.position_of(change))


@router.post("/{id}/rotate-secret", response_model=One[NewEndpointView], responses=answers.WRITE)
async def rotate_webhook_secret(
    id: str, api: ApiHere, me: Manager, body: bodies.SecretRotation | None = None
) -> Response:
    """Sign with a new secret, and with the old one too for a grace period (24 h if not said otherwise)."""
    wanted = body or bodies.SecretRotation()
    async with api.changes.begin() as change:
        made = await webhooks.rotate_secret(
            change, me.account, id, secret=wanted.secret, grace_s=wanted.grace_s, ring=api.keys.ring
        )
    return answers.one(made, at=answers.position_of(change))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_webhook(id: str, api: ApiHere, me: Manager) -> Response:
    """409 while subscriptions point at it; those of its own list of events go with it."""
    async with api.changes.begin() as change:
        await webhooks.delete(change, me.account, id)
    return answers.deleted(id, at=answers.position_of(change))
