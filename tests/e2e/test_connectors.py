"""From another platform's webhook to a customer that is read, and to who listens, over real processes."""

import hashlib
import hmac
import json
from typing import Any

from millrace_core.clock import SystemClock
from tests.e2e.conftest import Millrace
from tests.support.user import Answer
from tests.support.waiting import eventually

SECRET = "whsec_e2e_of_stripe"


async def post_as_stripe(millrace: Millrace, path: str, id: str, kind: str, thing: dict[str, Any]) -> Answer:
    now = SystemClock().now_ms() // 1000
    body = json.dumps({"id": id, "type": kind, "created": now, "data": {"object": thing}}).encode()
    mac = hmac.new(SECRET.encode(), b"%d.%b" % (now, body), hashlib.sha256).hexdigest()
    user = millrace.user
    return await user.send("POST", user.api + path, body, **{"stripe-signature": f"t={now},v1={mac}"})


async def test_a_stripe_webhook_is_read_at_once_and_heard(millrace: Millrace) -> None:
    wanted = {"connector": "stripe", "name": "e2e", "secrets": {"webhook_secret": SECRET}}
    made = (await millrace.user.ask("POST", "/v1/connectors", wanted)).json
    hook = await millrace.user.make(
        "/v1/webhooks", {"url": millrace.sink.url + "/stripe-e2e", "events": ["subscription.created"]}
    )
    thing = {"id": "cus_e2e", "name": "Adam Smith", "email": "adam@example.com", "created": 1_700_000_000}
    webhooks: list[tuple[str, dict[str, Any]]] = [
        ("customer.created", thing),
        ("customer.subscription.created", {"id": "sub_e2e", "customer": "cus_e2e", "status": "active"}),
        ("invoice.paid", {"id": "in_e2e", "customer": "cus_e2e", "status": "paid", "amount_paid": 900}),
    ]
    for n, (kind, one) in enumerate(webhooks):
        answer = await post_as_stripe(millrace, made["webhook_path"], f"evt_e2e_{n}", kind, one)
        assert (answer.status, answer.json["events"]) == (200, 1)
    answer = await millrace.user.ask("GET", "/v1/customers/cus_e2e")
    assert answer.status == 200, "what was posted before is read"

    async def is_told() -> bool:
        customer = (await millrace.user.ask("GET", "/v1/customers/cus_e2e")).json
        assert (customer["name"], customer["created_at"]) == ("Adam Smith", "2023-11-14T22:13:20Z")
        assert [one["status"] for one in customer["subscriptions"]] == ["active"]
        assert customer["latest_invoice"]["id"] == "in_e2e"
        return True

    await eventually(is_told, what="all three are told")
    assert (await millrace.stranger.ask("GET", "/v1/customers/cus_e2e")).status == 404

    async def is_heard() -> bool:
        (delivery,) = await millrace.user.get(f"/v1/deliveries?webhook={hook['id']}")
        return bool(delivery["status"] == "succeeded")

    await eventually(is_heard, what="the webhook is delivered")


async def test_a_fired_event_tells_of_a_ticket(millrace: Millrace) -> None:
    user = millrace.user
    body = {
        "event": "ticket.created",
        "payload": {"id": 5519, "subject": "Fired", "customer": {"id": "f1", "name": "F"}},
    }
    fired = await user.send("POST", user.gateway + "/v1/events/fire", json.dumps(body).encode())
    assert fired.status == 202, fired.body
    assert (await user.ask("GET", "/v1/customers/f1")).json["open_tickets"] == 1
    (ticket,) = (await user.ask("GET", "/v1/tickets?customer=f1")).json["data"]
    assert (ticket["id"], ticket["subject"], ticket["status"]) == ("5519", "Fired", "open")
