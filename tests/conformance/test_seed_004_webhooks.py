"""Seed 004, "Webhooks": create with a secret of one's own, list, delete; events by the names that the page has."""

from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from millrace_core import event, ids
from millrace_core.messages import Delivery, SubscriptionControl, decode
from millrace_core.record import Written
from millrace_dispatcher import sending
from millrace_dispatcher.endpoints import Endpoints
from millrace_kafka.reader import read_all
from millrace_matcher.handlers import MatcherHandler
from tests.support.api_world import ApiWorld

PAGE: dict[str, Any] = {
    "url": "https://yoursite.com/webhook",
    "events": ["workflow.executed", "form.submitted"],
    "secret": "your-webhook-secret",
}


async def made(api: ApiWorld, **more: Any) -> Any:
    answer = await api.ask("POST", "/v1/webhooks", PAGE | more)
    assert answer.status == 201, answer.body
    return answer.data


async def in_force(api: ApiWorld, webhook: str) -> tuple[bytes, list[bytes]]:
    """What the log says of an endpoint, and of the subscriptions that lead to it."""
    records = await read_all(api.cluster, ["control"])
    (endpoint,) = [one.value for one in records if one.key == f"endpoint/{api.account}/{webhook}".encode()]
    values = [one.value for one in records if (one.key or b"").startswith(f"subscription/{api.account}/".encode())]
    leading = [value for value in values if value and decode(value, SubscriptionControl).target_id == webhook]
    return endpoint or b"", leading


def delivered(account: str, webhook: str, endpoint: bytes, leading: list[bytes], identifier: str) -> Delivery:
    """What the matcher makes of an event."""
    matcher = MatcherHandler()
    matcher.followers["endpoint"].apply(account, webhook, endpoint)
    for value in leading:
        matcher.followers["subscription"].apply(account, ids.new_id("sub"), value)
    at = decode(leading[0], SubscriptionControl).created_at
    posted = event.Posted(identifier, event.NO_PROPERTIES)
    output = event.to_output(event.make_event(posted, account=account, now_ms=at), surface="test")
    (sent,) = matcher.handle(
        [Written("millrace.events.v1", 0, 0, at, output.key, output.value, output.headers)], 1
    ).outputs
    return decode(sent.value, Delivery)


# ── Create Webhook ──────────────────────────────────────────────────────────────────────────────────────────────────
async def test_create_webhook(api: ApiWorld) -> None:
    webhook = await made(api)
    assert {name: webhook[name] for name in PAGE} == PAGE
    assert webhook["style"] == "standard"
    shown = (await api.ask("GET", f"/v1/webhooks/{webhook['id']}")).data
    assert shown["events"] == PAGE["events"]
    assert "secret" not in shown


async def test_create_webhook_is_done_once_under_a_key(api: ApiWorld) -> None:
    headers = {"idempotency-key": ids.new_id("x")}
    first = await api.ask("POST", "/v1/webhooks", PAGE, headers=headers)
    again = await api.ask("POST", "/v1/webhooks", PAGE, headers=headers)
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    other = await api.ask("POST", "/v1/webhooks", PAGE | {"events": []}, headers=headers)
    assert (other.status, other.error["code"]) == (409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize(
    ("written", "identifier"),
    [
        ("workflow.executed", "e:workflows/workflow.executed"),
        ("form.submitted", "e:forms/submission.created"),
        ("submission.created", "e:forms/submission.created"),
        ("invoice.paid", "e:ops/invoice.paid"),
    ],
)
async def test_a_delivery_says_the_name_on_the_list_and_is_signed_with_the_given_secret(
    api: ApiWorld, written: str, identifier: str
) -> None:
    webhook = (await made(api, events=[written]))["id"]
    endpoint, leading = await in_force(api, webhook)
    sent = delivered(api.account, webhook, endpoint, leading, identifier)
    body = orjson.loads(bytes(sent.body))
    assert (body["type"], set(body)) == (written, {"id", "type", "timestamp", "data"})
    endpoints = Endpoints(api.seals.ring, user_agent="Millrace")
    endpoints.apply(api.account, webhook, endpoint)
    prepared = endpoints.get(api.account, webhook)
    assert prepared is not None
    now_ms = api.context.clock.now_ms()
    head = sending.head(prepared, sent, bytes(sent.body), now_ms=now_ms).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:-1])
    # The official library takes a secret that is no base64 as bytes.
    Webhook(PAGE["secret"].encode()).verify(bytes(sent.body), headers)


async def test_a_name_that_no_document_gives_is_refused(api: ApiWorld) -> None:
    refused = await api.ask("POST", "/v1/webhooks", PAGE | {"events": ["workflow.excuted"]})
    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["errors"][0]["where"] == "body.events.0"
    twice = await api.ask("POST", "/v1/webhooks", PAGE | {"events": ["form.submitted", "submission.created"]})
    assert twice.error["details"]["errors"][0]["where"] == "body.events"


async def test_names_can_be_changed(api: ApiWorld) -> None:
    webhook = (await made(api))["id"]
    changed = await api.ask("PATCH", f"/v1/webhooks/{webhook}", {"events": ["workflow.executed", "invoice.*"]})
    assert changed.data["events"] == ["workflow.executed", "invoice.*"]
    subscriptions = (await api.ask("GET", f"/v1/subscriptions?target={webhook}")).data
    assert {one["pattern"] for one in subscriptions} == {"e:workflows/workflow.executed", "e:ops/invoice.*"}
    assert {one["priority"] for one in subscriptions} == {400}


# ── List Webhooks ───────────────────────────────────────────────────────────────────────────────────────────────────
async def test_list_webhooks(api: ApiWorld) -> None:
    newest = [(await made(api))["id"] for _ in range(3)][::-1]
    first = (await api.ask("GET", "/v1/webhooks?limit=2")).json
    assert first["success"] is True
    assert [one["id"] for one in first["data"]] == newest[:2]
    meta = first["meta"]
    assert (meta["page"], meta["limit"], meta["has_more"]) == (1, 2, True)
    assert meta["total"] >= 3
    by_number = (await api.ask("GET", "/v1/webhooks?limit=2&page=2")).json
    by_cursor = (await api.ask("GET", f"/v1/webhooks?limit=2&cursor={meta['next_cursor']}")).json
    assert by_number["data"] == by_cursor["data"]
    assert by_number["data"][0]["id"] == newest[2]
    assert (by_number["meta"]["page"], by_cursor["meta"]["page"]) == (2, None)
    both = await api.ask("GET", f"/v1/webhooks?page=2&cursor={meta['next_cursor']}")
    assert (both.status, both.error["code"]) == (400, "VALIDATION_ERROR")
    assert all("secret" not in one for one in first["data"])


# ── Delete Webhook ──────────────────────────────────────────────────────────────────────────────────────────────────
async def test_delete_webhook(api: ApiWorld) -> None:
    webhook = (await made(api))["id"]
    assert (await api.ask("DELETE", f"/v1/webhooks/{webhook}")).status == 200
    gone = await api.ask("GET", f"/v1/webhooks/{webhook}")
    assert (gone.status, gone.error["code"]) == (404, "NOT_FOUND")


async def test_another_account_sees_nothing_of_it(api: ApiWorld) -> None:
    webhook = (await made(api))["id"]
    for method in ("GET", "DELETE"):
        assert (await api.ask_b(method, f"/v1/webhooks/{webhook}")).status == 404
    assert webhook not in (await api.ask_b("GET", "/v1/webhooks?limit=100")).body.decode()


async def test_the_scope_is_asked_for(api: ApiWorld) -> None:
    weak = (await api.ask("POST", "/v1/keys", {"name": "weak", "scopes": ["read:webhooks"]})).data["key"]
    assert (await api.ask("GET", "/v1/webhooks", key=weak)).status == 200
    refused = await api.ask("POST", "/v1/webhooks", PAGE, key=weak)
    assert (refused.status, refused.error["code"]) == (403, "FORBIDDEN")
