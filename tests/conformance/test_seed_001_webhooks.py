"""Seed 001, "Push events to your stack", "Triggers" (subscribers in priority order), and `POST /v1/webhooks/test`."""

from typing import Any

from millrace_core.messages import EndpointControl, decode
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld

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
    by_hand = {"pattern": "e:a/b", "target": {"type": "webhook", "id": hook}}
    assert (await api.ask("POST", "/v1/subscriptions", by_hand)).data["priority"] == 400
    changed = await api.ask("PATCH", f"/v1/subscriptions/{made['id']}", {"priority": 500})
    assert changed.data["priority"] == 500


# ── webhooks with cryptographic proof ───────────────────────────────────────────────────────────────────────────────
async def test_an_endpoint_of_the_ops_style_is_so_on_the_log(api: ApiWorld) -> None:
    made = (await api.ask("POST", "/v1/webhooks", {"url": URL, "events": ["invoice.*"], "style": "ops"})).data
    assert made["style"] == "ops"
    key = f"endpoint/{api.account}/{made['id']}".encode()
    (value,) = [one.value for one in await read_all(api.cluster, ["control"]) if one.key == key]
    control = decode(value, EndpointControl)
    assert (control.style, control.names) == ("ops", ("invoice.*",))
