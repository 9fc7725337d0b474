"""Seed 001, "Push events to your stack", "Triggers" (subscribers in priority order), and `POST /v1/webhooks/test`."""

import hashlib
import hmac
import secrets
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from millrace_core.messages import EndpointControl, decode
from millrace_devstack.ports import free_port
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.receiver import answers_status, receiving
from tests.support.signing import signed_headers
from tests.support.user import Answer

URL = "https://yoursite.com/webhook"
STEP: dict[str, Any] = {"type": "transform", "config": {"value": 1}}


# ── subscribers react in priority order ─────────────────────────────────────────────────────────────────────────────
async def test_automation_rules_come_before_webhooks_and_an_owner_may_change_it(api: ApiWorld) -> None:
    job = (await api.ask("POST", "/v1/jobs", {"name": "rule", "step": STEP})).data["id"]
    rule = {"pattern": "e:ops/order.shipped", "target": {"type": "job", "id": job}}
    made = (await api.ask("POST", "/v1/subscriptions", rule)).data
    assert made["priority"] == 200
    hook = (await api.ask("POST", "/v1/webhooks", {"url": URL, "events": ["order.shipped"]})).data["id"]
    (own,) = (await api.ask("GET", f"/v1/subscriptions?target={hook}")).data
    assert own["priority"] == 400
    first = await api.ask("PATCH", f"/v1/webhooks/{hook}", {"priority": 50})
    assert first.data["priority"] == 50
    (moved,) = (await api.ask("GET", f"/v1/subscriptions?target={hook}")).data
    assert (moved["id"], moved["priority"]) == (own["id"], 50), "what it matches stays the same delivery"
    by_hand = {"pattern": "e:a/b", "target": {"type": "webhook", "id": hook}}
    assert (await api.ask("POST", "/v1/subscriptions", by_hand)).data["priority"] == 400
    changed = await api.ask("PATCH", f"/v1/subscriptions/{made['id']}", {"priority": 500})
    assert changed.data["priority"] == 500


# ── webhooks with cryptographic proof ───────────────────────────────────────────────────────────────────────────────
async def test_an_endpoint_of_the_ops_style_is_so_on_the_log(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/webhooks", {"url": URL, "events": ["invoice.*"], "style": "ops"})).data
    assert made["style"] == "ops"
    assert made["secret"].startswith("os_hook_"), "signed with as it stands: no base64 to be taken apart"
    rotated = (await api.ask("POST", f"/v1/webhooks/{made['id']}/rotate-secret")).data
    assert rotated["secret"].startswith("os_hook_")
    key = f"endpoint/{api.account}/{made['id']}".encode()
    values = [one.value for one in await read_all(api.cluster, ["control"]) if one.key == key]
    control = decode(values[-1], EndpointControl)
    assert (control.style, control.names) == ("ops", ("invoice.*",))


async def signing_key(api: ApiWorld, *scopes: str) -> tuple[str, str]:
    """A key pair."""
    body = {"name": "ops", "scopes": list(scopes) or ["*"], "surface": "ops"}
    made = (await api.ask("POST", "/v1/keys", body)).data
    return made["key"], made["secret"]


async def signed(api: ApiWorld, pair: tuple[str, str], method: str, path: str, body: Any = None) -> Answer:
    """Ask as the page's SDKs do."""
    raw = b"" if body is None else orjson.dumps(body)
    headers = {**signed_headers(*pair, method, path, raw), "content-type": "application/json"}
    async with api.session.request(method, api.url + path, data=raw or None, headers=headers) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def test_a_signed_caller_has_webhooks_in_the_ops_shape(api: ApiWorld) -> None:
    pair = await signing_key(api)
    made = await signed(api, pair, "POST", "/v1/webhooks", {"url": URL, "events": ["invoice.paid"]})
    assert made.status == 201
    assert (made.json["style"], made.json["events"]) == ("ops", ["invoice.paid"])
    assert "success" not in made.json
    listed = await signed(api, pair, "GET", "/v1/webhooks?limit=1")
    assert set(listed.json) == {"data", "next_cursor", "has_more"}
    assert listed.json["data"][0]["id"] == made.json["id"]
    gone = await signed(api, pair, "DELETE", f"/v1/webhooks/{made.json['id']}")
    assert (gone.status, gone.json) == (200, {"id": made.json["id"], "deleted": True})
    missing = await signed(api, pair, "GET", f"/v1/webhooks/{made.json['id']}")
    assert (missing.status, missing.json["error"]["code"]) == (404, "not_found")
    assert "success" not in missing.json


# ── POST /v1/webhooks/test ──────────────────────────────────────────────────────────────────────────────────────────
PAYLOAD = {"customer_id": 421, "order_ref": "NB-9182", "carrier": "DHL"}


async def test_a_url_is_sent_a_message_signed_with_the_callers_own_secret(api: ApiWorld) -> None:
    pair = await signing_key(api)
    async with receiving() as receiver:
        body = {"url": receiver.url(), "event": "order.shipped", "payload": PAYLOAD}
        answer = await signed(api, pair, "POST", "/v1/webhooks/test", body)
        (request,) = receiver.requests
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "succeeded"
    assert answer.json["delivery_id"] == request.headers["x-opsiq-delivery-id"]
    assert answer.json["duration_ms"] > 0
    assert answer.json["http_status"] == 200
    right = hmac.new(pair[1].encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-opsiq-signature"] == f"sha256={right}"
    assert abs(int(request.headers["x-opsiq-timestamp"]) - api.context.clock.now_ms() / 1000) < 60
    sent = orjson.loads(request.body)
    assert (sent["type"], sent["data"]) == ("order.shipped", PAYLOAD)
    assert sent["id"] == request.headers["x-opsiq-idempotency-key"]


async def test_a_webhook_is_sent_a_message_with_its_own_secret_and_style(api: ApiWorld) -> None:
    async with receiving() as receiver:
        made = (await api.ask("POST", "/v1/webhooks", {"url": receiver.url(), "enabled": False})).data
        test = {"webhook_id": made["id"], "event": "invoice.paid", "payload": {"n": 1}}
        answer = await api.ask("POST", "/v1/webhooks/test", test)
        (request,) = receiver.requests
    assert answer.json["status"] == "succeeded"
    Webhook(made["secret"]).verify(request.body, request.headers)
    assert request.headers["webhook-id"] == answer.json["delivery_id"]
    assert "x-opsiq-signature" not in request.headers
    assert made["secret"].encode() not in answer.body


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_anything_but_2xx_is_a_failed_test(api: ApiWorld, status: int) -> None:
    async with receiving(answers_status(status)) as receiver:
        body = {"url": receiver.url(), "event": "a.b", "secret": "a-secret-of-mine"}
        answer = await api.ask("POST", "/v1/webhooks/test", body)
    assert answer.status == 200
    assert (answer.json["status"], answer.json["http_status"]) == ("failed", status)
    assert answer.json["error"]["code"] == f"http_{status}"


async def test_nobody_there_is_a_failed_test(api: ApiWorld) -> None:
    body = {"url": f"http://127.0.0.1:{free_port()}/", "event": "a.b", "secret": "a-secret-of-mine"}
    answer = await api.ask("POST", "/v1/webhooks/test", body)
    assert (answer.status, answer.json["status"], answer.json["http_status"]) == (200, "failed", None)
    assert answer.json["error"]["code"] == "connect_failed"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"url": "http://10.0.0.1/", "event": "a.b", "secret": "a-secret-of-mine"}, "body.url"),
        ({"url": "http://169.254.169.254/", "event": "a.b", "secret": "a-secret-of-mine"}, "body.url"),
        ({"event": "a.b"}, "body.url"),
        ({"url": URL, "webhook_id": "we_x", "event": "a.b"}, "body.url"),
        ({"url": URL, "event": "a.*", "secret": "a-secret-of-mine"}, "body.event"),
        ({"url": URL, "event": "a.b"}, "body.secret"),
        ({"webhook_id": "we_x", "event": "a.b", "secret": "a-secret-of-mine"}, "body.secret"),
    ],
)
async def test_what_cannot_be_tested_is_said_in_the_ops_envelope(
    api: ApiWorld, body: dict[str, Any], where: str
) -> None:
    answer = await api.ask("POST", "/v1/webhooks/test", body)
    assert (answer.status, answer.error["code"]) == (400, "validation_failed")
    assert "success" not in answer.json
    assert answer.error["details"]["errors"][0]["where"] == where


async def test_a_test_is_made_once_under_an_idempotency_key(api: ApiWorld) -> None:
    async with receiving() as receiver:
        body = {"url": receiver.url(), "event": "a.b", "secret": "a-secret-of-mine"}
        headers = {"idempotency-key": secrets.token_hex(8)}
        first = await api.ask("POST", "/v1/webhooks/test", body, headers=headers)
        again = await api.ask("POST", "/v1/webhooks/test", body, headers=headers)
        assert len(receiver.requests) == 1
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")


async def test_another_accounts_webhook_is_none_and_the_scope_is_asked_for(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/webhooks", {"url": URL})).data
    answer = await api.ask_b("POST", "/v1/webhooks/test", {"webhook_id": made["id"], "event": "a.b"})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    refused = await signed(
        api, await signing_key(api, "read:webhooks"), "POST", "/v1/webhooks/test", {"url": URL, "event": "a.b"}
    )
    assert (refused.status, refused.error["code"]) == (403, "forbidden")
