"""`/v1/webhooks`: the automation document's, with what is native beside it. A signed caller is answered in the ops
document's shape, and the endpoints he makes are of its style.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from millrace_api.application import webhooks
from millrace_api.application.webhooks import EndpointView, NewEndpointView, Style
from millrace_api.surfaces import answers
from millrace_api.surfaces.answers import Deleted, Numbered, One
from millrace_api.surfaces.calls import ApiHere, Caller, NumberedHere, StrictRoute, caller
from millrace_api.surfaces.native import bodies
from millrace_api.surfaces.once import OnceHere
from millrace_api.surfaces.which import is_signed
from millrace_web import scopes
from millrace_web.envelopes import AUTOMATION, OPS
from millrace_web.paging import Page

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], route_class=StrictRoute)
Reader = Annotated[Caller, caller(scopes.READ_WEBHOOKS)]
Manager = Annotated[Caller, caller(scopes.MANAGE_WEBHOOKS)]
LISTING = "webhooks"


class Shape:
    """How this caller is answered."""

    def __init__(self, request: Request) -> None:
        self._is_ops = is_signed(request.scope)

    @property
    def style(self) -> Style:
        """Of the endpoints that he makes and says nothing about."""
        return "ops" if self._is_ops else "standard"

    def one(self, data: object, *, status: int = 200) -> Response:
        envelope = OPS if self._is_ops else AUTOMATION
        return answers.Json(envelope.success(data, None), status_code=status)

    def many(self, page: Page[Any], listing: NumberedHere, total: int) -> Response:
        if self._is_ops:
            return answers.Json({"data": page.items, **page.meta})
        return answers.numbered(page, number=listing.page_number, limit=listing.query.limit, total=total)


ShapeHere = Annotated[Shape, Depends(Shape)]


@router.post("", status_code=201, response_model=One[NewEndpointView], responses=answers.WRITE)
async def create_webhook(
    body: bodies.NewWebhook, api: ApiHere, me: Manager, once: OnceHere, shape: ShapeHere
) -> Response:
    """Deliver events to a URL, signed as Standard Webhooks (and as the ops document has it, in that style). The secret
    is in this answer and never shown again."""
    async with once.changing(api) as doing:
        made = await webhooks.create(
            doing.change,
            me.account,
            body.wanted(style=shape.style),
            secret=body.secret,
            ring=api.keys.ring,
            egress=api.egress,
        )
        doing.answer = shape.one(made, status=201)
    return doing.answered()


@router.get("", response_model=Numbered[EndpointView], responses=answers.READ)
async def list_webhooks(api: ApiHere, me: Reader, listing: NumberedHere, shape: ShapeHere) -> Response:
    """Newest first, by page or by cursor."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.reading() as tx:
        rows = await webhooks.listed(tx, me.account, below=below, count=listing.count, skipped=listing.skipped)
        total = await webhooks.total(tx, me.account)
    return shape.many(listing.by_id(rows, me.account, LISTING), listing, total)


@router.get("/{id}", response_model=One[EndpointView], responses=answers.READ)
async def get_webhook(id: str, api: ApiHere, me: Reader, shape: ShapeHere) -> Response:
    """Without its secret."""
    async with api.database.asking() as tx:
        return shape.one(await webhooks.get(tx, me.account, id))


@router.patch("/{id}", response_model=One[EndpointView], responses=answers.WRITE)
async def update_webhook(id: str, body: bodies.WebhookPatch, api: ApiHere, me: Manager, shape: ShapeHere) -> Response:
    """Change the members that are named. Enabling an endpoint that the platform disabled lets it begin anew."""
    async with api.changes.begin() as change:
        made = await webhooks.update(change, me.account, id, body.named(), egress=api.egress)
    return answers.placed(shape.one(made), at=answers.position_of(change))


@router.post("/{id}/rotate-secret", response_model=One[NewEndpointView], responses=answers.WRITE)
async def rotate_webhook_secret(
    id: str, api: ApiHere, me: Manager, once: OnceHere, shape: ShapeHere, body: bodies.SecretRotation | None = None
) -> Response:
    """Sign with a new secret, and with the old one too for a grace period (24 h if not said otherwise)."""
    wanted = body or bodies.SecretRotation()
    async with once.changing(api) as doing:
        made = await webhooks.rotate_secret(
            doing.change, me.account, id, secret=wanted.secret, grace_s=wanted.grace_s, ring=api.keys.ring
        )
        doing.answer = shape.one(made)
    return doing.answered()


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_webhook(id: str, api: ApiHere, me: Manager, shape: ShapeHere) -> Response:
    """409 while subscriptions point at it; those of its own list of events go with it."""
    async with api.changes.begin() as change:
        await webhooks.delete(change, me.account, id)
    return answers.placed(shape.one({"id": id, "deleted": True}), at=answers.position_of(change))
