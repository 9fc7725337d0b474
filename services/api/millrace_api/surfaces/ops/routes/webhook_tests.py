"""`POST /v1/webhooks/test`."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from millrace_api.application import webhook_tests, webhooks
from millrace_api.application.webhook_tests import Destination, TestView
from millrace_api.surfaces.calls import ApiHere, Caller, StrictRoute, caller
from millrace_api.surfaces.once import OnceHere
from millrace_api.surfaces.ops import answers
from millrace_core import ids, limits
from millrace_web import scopes

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], route_class=StrictRoute)
Manager = Annotated[Caller, caller(scopes.MANAGE_WEBHOOKS)]
USER_AGENT = "Millrace"


class WebhookTest(BaseModel):
    """Exactly one of `url` and `webhook_id`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"url": "https://example.com/hook", "event": "invoice.paid", "payload": {"invoice_id": 1}},
                {"webhook_id": "we_0190f1d2c3b47a5e8f6071829304a5b6", "event": "order.shipped", "payload": {}},
            ]
        },
    )

    url: Annotated[str | None, Field(min_length=1, max_length=limits.URL_CHARS_MAX)] = None
    webhook_id: Annotated[str | None, Field(max_length=64)] = None
    event: Annotated[str, Field(min_length=1, max_length=256)]
    payload: dict[str, Any] = {}
    secret: Annotated[
        str | None,
        Field(
            max_length=webhooks.SECRET_CHARS_MAX,
            description="With `url`: what the message is signed with; left out = the secret of the key that signed "
            "the request.",
        ),
    ] = None

    def wanted(self) -> webhook_tests.Wanted:
        return webhook_tests.Wanted(self.event, self.payload, self.url, self.webhook_id, self.secret)


@router.post("/test", response_model=TestView, responses=answers.WRITE)
async def test_webhook(body: WebhookTest, api: ApiHere, me: Manager, once: OnceHere) -> Response:
    """Send one message as a delivery is sent, wait for its end (10 s at most), and say what came of it. `status` is
    `succeeded` for a 2xx, else `failed` with an `error`. It is no delivery: it is not retried, and not kept."""
    wanted = body.wanted()
    webhook_tests.check(wanted)
    to = await _destination(api, me, wanted)
    async with once.holding(api) as holding:
        delivery = once.id_for(ids.DELIVERY)
        made = await webhook_tests.send(api.outside, me.account, wanted, to, delivery=delivery, user_agent=USER_AGENT)
        holding.answer = answers.one(made)
    return holding.answered()


async def _destination(api: ApiHere, me: Caller, wanted: webhook_tests.Wanted) -> Destination:
    ring, egress = api.keys.ring, tuple(api.egress)
    if wanted.webhook_id is not None:
        async with api.database.asking() as tx:
            return await webhook_tests.endpoint(tx, me.account, wanted, ring=ring, egress=egress)
    return webhook_tests.bare(me.account, wanted, key=me.id, sealed_secret=me.sealed_secret, ring=ring, egress=egress)
