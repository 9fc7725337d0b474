"""`/api/v1/webhooks`: the endpoints of the account, as the intake document shows them."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from millrace_api.application import webhooks
from millrace_api.application.webhooks import EndpointView, Wanted
from millrace_api.surfaces.answers import placed, position_of
from millrace_api.surfaces.bodies import Body, Description, Text
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_api.surfaces.intake import answers
from millrace_api.surfaces.intake.answers import Deleted, Many, One
from millrace_api.surfaces.intake.calls import ListingHere
from millrace_api.surfaces.once import OnceHere
from millrace_core import limits
from millrace_web import scopes

router = APIRouter(prefix="/api/v1/webhooks", tags=["Intake webhooks"], route_class=StrictRoute)
Manager = Annotated[Caller, caller(scopes.MANAGE_WEBHOOKS)]
LISTING = "intake webhooks"


class NewWebhook(Body):
    url: Annotated[Text, Field(max_length=limits.URL_CHARS_MAX, examples=["https://example.com/hook"])]
    events: Annotated[
        list[Text], Field(min_length=1, max_length=webhooks.EVENTS_MAX, examples=[["submission.created"]])
    ]
    description: Description | None = None


class Webhook(BaseModel):
    id: str
    url: str
    events: list[str]
    description: str | None
    enabled: bool
    created_at: datetime
    updated_at: datetime


class NewWebhookAnswer(Webhook):
    secret: str = Field(description="What deliveries are signed with; never shown again.")


@router.get("", response_model=Many[Webhook], responses=answers.READ)
async def list_intake_webhooks(api: ApiHere, me: Manager, listing: ListingHere) -> Response:
    """Newest first."""
    below = listing.below_id(me.account, LISTING)
    async with api.database.asking() as tx:
        rows = await webhooks.listed(tx, me.account, below=below, count=listing.count)
    page = listing.by_id(rows, me.account, LISTING)
    return answers.many(page, [_webhook(row) for row in page.items])


@router.post("", status_code=201, response_model=One[NewWebhookAnswer], responses=answers.WRITE)
async def create_intake_webhook(body: NewWebhook, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Register an endpoint. Deliveries are signed as Standard Webhooks has it; the secret is in this answer and never
    shown again."""
    wanted = Wanted(body.url, tuple(body.events), body.description)
    async with once.changing(api) as doing:
        made = await webhooks.create(
            doing.change, me.account, wanted, secret=None, ring=api.keys.ring, egress=api.egress
        )
        doing.answer = answers.one(_webhook(made) | {"secret": made.secret}, status=201)
    return doing.answered()


@router.get("/{id}", response_model=One[Webhook], responses=answers.READ)
async def get_intake_webhook(id: str, api: ApiHere, me: Manager) -> Response:
    async with api.database.asking() as tx:
        return answers.one(_webhook(await webhooks.get(tx, me.account, id)))


@router.delete("/{id}", response_model=One[Deleted], responses=answers.WRITE)
async def delete_intake_webhook(id: str, api: ApiHere, me: Manager) -> Response:
    """409 while subscriptions of others point at it."""
    async with api.changes.begin() as change:
        await webhooks.delete(change, me.account, id)
    return placed(answers.one({"id": id, "deleted": True}), at=position_of(change))


def _webhook(view: EndpointView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in Webhook.model_fields}
