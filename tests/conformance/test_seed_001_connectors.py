"""Seed 001, "The connector pattern" and `GET /v1/connectors`: built once, plugged into anything."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from millrace_core import actions
from millrace_core.clock import SystemClock
from millrace_core.messages import Event, decode
from millrace_devstack.ports import free_port
from millrace_kafka.reader import read_all
from tests.support.api_world import ApiWorld
from tests.support.user import Answer

SECRET = "whsec_of_stripe"


async def connect(api: ApiWorld, **wanted: Any) -> Any:
    answer = await api.ask("POST", "/v1/connectors", {"name": "test", **wanted})
    assert answer.status == 201, answer.body
    return answer.json


async def post(api: ApiWorld, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    async with api.session.post(api.url + path, data=io.BytesIO(body), headers=headers) as answer:
        return Answer(answer.status, answer.headers, await answer.read())


async def events_of(api: ApiWorld, identifier: str) -> list[Event]:
    records = await read_all(api.cluster, ["events"])
    found = [decode(record.value, Event) for record in records if record.key == identifier.encode()]
    return [event for event in found if event.account == api.account]


def stripe_headers(body: bytes, *, secret: str = SECRET, ago_s: int = 0) -> dict[str, str]:
    at = SystemClock().now_ms() // 1000 - ago_s
    mac = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at},v1={mac}", "content-type": "application/json"}


def stripe_event(id: str, kind: str, thing: dict[str, Any]) -> bytes:
    created = SystemClock().now_ms() // 1000
    return json.dumps({"id": id, "type": kind, "created": created, "data": {"object": thing}}).encode()


# ── inbound webhooks of Stripe ──────────────────────────────────────────────────────────────────────────────────────
async def test_a_stripe_webhook_becomes_an_event_on_the_log(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe", secrets={"webhook_secret": SECRET})
    body = stripe_event("evt_1", "invoice.paid", {"id": "in_stripe", "status": "paid", "customer": "cus_1"})
    answer = await post(api, made["webhook_path"], body, stripe_headers(body))
    assert (answer.status, answer.json) == (200, {"received": True, "events": 1})
    (event,) = await events_of(api, "e:ops/invoice.paid")
    assert json.loads(bytes(event.properties)) == {"id": "in_stripe", "status": "paid", "customer": {"id": "cus_1"}}
    assert event.unique_key == "evt_1"
    shown = (await api.ask("GET", f"/v1/connectors/{made['id']}")).json
    assert shown["status"] == "healthy"
    assert shown["counts"] == {"received": 1, "refused": 0, "failed": 0, "timed_out": 0, "events": 1}
    assert shown["last_event_at"]


async def test_what_stripe_did_not_sign_is_refused_and_counted(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe", secrets={"webhook_secret": SECRET})
    body = stripe_event("evt_2", "customer.created", {"id": "cus_unsigned"})
    wrong = [{}, stripe_headers(body, secret="x"), stripe_headers(body, ago_s=400), stripe_headers(body + b" ")]
    for headers in wrong:
        answer = await post(api, made["webhook_path"], body, headers)
        assert (answer.status, answer.error["code"]) == (401, "unauthorized")
    broken = b"{"
    assert (await post(api, made["webhook_path"], broken, stripe_headers(broken))).status == 400
    shown = (await api.ask("GET", f"/v1/connectors/{made['id']}")).json
    assert (shown["counts"]["refused"], shown["counts"]["events"]) == (5, 0)
    assert shown["last_error"]
    assert not [
        one for one in await events_of(api, "e:ops/customer.created") if b"cus_unsigned" in bytes(one.properties)
    ]


async def test_what_means_nothing_is_received(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe", secrets={"webhook_secret": SECRET})
    body = stripe_event("evt_3", "charge.refunded", {"id": "ch_1"})
    assert (await post(api, made["webhook_path"], body, stripe_headers(body))).json == {"received": True, "events": 0}


async def test_a_webhook_may_have_any_query_and_headers(api: ApiWorld) -> None:
    config = {"events": [{"event": "a.b"}], "unsigned": True}
    made = await connect(api, connector="http_json", config=config)
    url = URL(f"{api.url}{made['webhook_path']}?a=%FF", encoded=True)
    async with api.session.post(url, data=b"{}", headers={"x-odd": "\u00e9"}) as answer:
        assert answer.status == 200, await answer.read()


async def test_nothing_is_at_an_address_that_is_not_there(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe")
    unknown = await post(api, f"/connectors/cn_{'0' * 32}/webhook", b"{}")
    assert (unknown.status, unknown.error["code"]) == (404, "not_found")
    await api.ask("PATCH", f"/v1/connectors/{made['id']}", {"enabled": False})
    assert (await post(api, made["webhook_path"], b"{}")).status == 404
    assert (await api.ask("GET", f"/v1/connectors/{made['id']}")).json["status"] == "disabled"
    await api.ask("DELETE", f"/v1/connectors/{made['id']}")
    assert (await post(api, made["webhook_path"], b"{}")).status == 404
    assert (await api.ask("GET", f"/v1/connectors/{made['id']}")).status == 404
    large = await post(api, made["webhook_path"], b"x" * 1_048_577)
    assert large.status == 413


async def test_null_clears_an_address_and_is_refused_elsewhere(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe", secrets={"webhook_secret": "x"})
    path = f"/v1/connectors/{made['id']}"
    for member in ("name", "config", "secrets", "enabled"):
        refused = await api.ask("PATCH", path, {member: None})
        assert (refused.status, refused.error["code"]) == (400, "validation_failed"), member
    same = await api.ask("PATCH", path, {"url": None, "secrets": {"webhook_secret": None}})
    assert same.status == 200
    assert (same.json["url"], same.json["name"], same.json["enabled"]) == (None, made["name"], True)


# ── anything that posts JSON ────────────────────────────────────────────────────────────────────────────────────────
async def test_a_mapping_by_configuration_makes_events(api: ApiWorld) -> None:
    rule = {"when": {"kind": "opened"}, "event": "ticket.created", "payload": {"id": "$.issue.id", "from": "desk"}}
    made = await connect(
        api, connector="http_json", config={"events": [rule], "token": "X-Desk"}, secrets={"webhook_secret": "t0ken"}
    )
    body = b'{"kind": "opened", "issue": {"id": "desk-1"}}'
    assert (await post(api, made["webhook_path"], body, {"x-desk": "no"})).status == 401
    assert (await post(api, made["webhook_path"], body, {"x-desk": "t0ken"})).json["events"] == 1
    found = [json.loads(bytes(one.properties)) for one in await events_of(api, "e:ops/ticket.created")]
    assert {"id": "desk-1", "from": "desk"} in found


async def test_a_connector_that_fails_is_counted_and_asked_again(api: ApiWorld) -> None:
    """A rule without an event is a bug in the configuration: the platform is told to send it again."""
    made = await connect(api, connector="http_json", config={"events": [{"when": {}}], "unsigned": True})
    for _ in range(3):
        answer = await post(api, made["webhook_path"], b"{}")
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    shown = (await api.ask("GET", f"/v1/connectors/{made['id']}")).json
    assert (shown["status"], shown["counts"]["failed"]) == ("failing", 3)
    assert "KeyError" in shown["last_error"]
    mended = {"config": {"events": [{"event": "a.b"}], "unsigned": True}}
    assert (await api.ask("PATCH", f"/v1/connectors/{made['id']}", mended)).status == 200
    assert (await post(api, made["webhook_path"], b"{}")).status == 200
    assert (await api.ask("GET", f"/v1/connectors/{made['id']}")).json["status"] == "healthy"


# ── a remote connector, such as the page's class in PHP ─────────────────────────────────────────────────────────────
@dataclass
class Php:
    """Serves the five calls as a class in another language would, and checks who calls."""

    secret: str = ""
    url: str = ""
    calls: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200

    async def called(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.headers["x-opsiq-signature"] == actions.sign(self.secret, body) or not self.secret
        asked = json.loads(body)
        assert asked["call"] == request.match_info["call"]
        assert abs(asked["timestamp"] - SystemClock().now_ms() / 1000) < 60
        assert "secrets" not in asked["connection"]
        self.calls.append(asked["call"])
        answers: dict[str, Any] = {
            "identityProviders": [{"name": "wordpress", "thing": "customer"}],
            "contextProviders": [{"name": "orders"}],
            "registerActions": [{"id": "shop.refund"}],
            "subscribers": [{"events": ["invoice.paid", "ticket.*"]}],
        }
        if asked["call"] == "handleWebhook":
            given = json.loads(base64.b64decode(asked["request"]["body"]))
            answer: Any = {"events": self.events, "answer": {"challenge": given["challenge"]}}
        else:
            answer = answers[asked["call"]]
        return web.json_response(answer, status=self.status)


@asynccontextmanager
async def served() -> AsyncIterator[Php]:
    php, app = Php(), web.Application()
    app.router.add_post("/connector/{call}", php.called)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    php.url = f"http://127.0.0.1:{port}/connector"
    try:
        yield php
    finally:
        await runner.cleanup()


async def test_a_remote_connector_serves_the_same_five_calls(api: ApiWorld) -> None:
    async with served() as php:
        made = await connect(api, connector="remote", url=php.url, config={"shop": 1})
        php.secret = made["signing_secret"]
        assert php.calls == ["identityProviders", "contextProviders", "registerActions", "subscribers"]
        assert made["declared"]["identity_providers"] == [{"name": "wordpress", "thing": "customer"}]
        assert made["declared"]["register_actions"] == [{"id": "shop.refund"}]
        php.events = [{"event": "order.remote", "payload": {"n": 1}}]
        answer = await post(api, made["webhook_path"], b'{"challenge": "c"}')
        assert (answer.status, answer.json) == (200, {"challenge": "c"})
        assert len(await events_of(api, "e:ops/order.remote")) == 1
        php.status = 500
        assert (await post(api, made["webhook_path"], b'{"challenge": "c"}')).status == 503
        refreshed = (await api.ask("POST", f"/v1/connectors/{made['id']}/refresh")).json
        assert (refreshed["status"], set(refreshed["declared"]["errors"])) == (
            "degraded",
            {"identity_providers", "context_providers", "register_actions", "subscribers"},
        )
    assert (await post(api, made["webhook_path"], b"{}")).status == 503
    assert (await api.ask("GET", f"/v1/connectors/{made['id']}")).json["counts"]["failed"] == 2


async def test_mirror_connectors_hear_events_at_their_priority(api: ApiWorld) -> None:
    async with served() as php:
        made = await connect(api, connector="remote", url=php.url, secrets={"signing_secret": "known-to-both-sides"})
        hook = made["mirror_webhook"]
        endpoint = (await api.ask("GET", f"/v1/webhooks/{hook}")).data
        assert (endpoint["url"], endpoint["style"], endpoint["priority"]) == (f"{php.url}/events", "ops", 300)
        assert endpoint["events"] == ["invoice.paid", "ticket.*"]
        listening = (await api.ask("GET", f"/v1/subscriptions?target={hook}")).data
        heard = {(one["pattern"], one["priority"]) for one in listening}
        assert heard == {("e:ops/invoice.paid", 300), ("e:ops/ticket.*", 300)}
        again = (await api.ask("POST", f"/v1/connectors/{made['id']}/refresh")).json
        assert again["mirror_webhook"] == hook
        changed = {"secrets": {"signing_secret": "another-to-both-sides"}}
        kept = (await api.ask("PATCH", f"/v1/connectors/{made['id']}", changed)).json
        version = (await api.ask("GET", f"/v1/webhooks/{hook}")).data["version"]
        assert (kept["mirror_webhook"], version) == (hook, endpoint["version"] + 1), "it is signed with the new one"
        await api.ask("DELETE", f"/v1/webhooks/{hook}")
        anew = (await api.ask("POST", f"/v1/connectors/{made['id']}/refresh")).json["mirror_webhook"]
        assert anew not in (hook, None)
        await api.ask("DELETE", f"/v1/connectors/{made['id']}")
        assert (await api.ask("GET", f"/v1/webhooks/{anew}")).status == 404


CONTRACT = {
    "id": "desk.reopen",
    "description": "Open a ticket again",
    "surface": "admin",
    "roles": ["owner"],
    "parameters": {"type": "object", "properties": {"ticket": {"type": "string"}}, "required": ["ticket"]},
    "endpoint": "https://desk.example/reopen",
}


async def test_actions_that_a_connector_declares_are_registered_by_who_may(api: ApiWorld) -> None:
    config: dict[str, Any] = {"actions": [CONTRACT], "unsigned": True}
    made = await connect(api, connector="http_json", config=config)
    path = f"/v1/connectors/{made['id']}"
    assert (await api.ask("GET", "/v1/actions/desk.reopen")).status == 404, "a declaration alone allows nothing"
    (registered,) = (await api.ask("POST", f"{path}/actions")).json["data"]
    assert (registered["contract"]["id"], bool(registered["secret"])) == ("desk.reopen", True)
    assert (await api.ask("POST", f"{path}/actions")).json["data"] == []
    changed = {**config, "actions": [{**CONTRACT, "title": "Reopen"}]}
    await api.ask("PATCH", path, {"config": changed})
    (again,) = (await api.ask("POST", f"{path}/actions")).json["data"]
    assert (again["version"], again["secret"]) == (2, None)
    await api.ask("PATCH", path, {"config": {**config, "actions": [{"id": "x\0"}]}})
    answer = await api.ask("POST", f"{path}/actions")
    assert (answer.status, answer.error["code"]) == (400, "validation_failed")
    key = (await api.ask("POST", "/v1/keys", {"name": "n", "scopes": ["manage:connectors"]})).data["key"]
    assert (await api.ask("POST", f"{path}/actions", key=key)).status == 403
    assert (await api.ask_b("POST", f"{path}/actions")).status == 404


# ── GET /v1/connectors ──────────────────────────────────────────────────────────────────────────────────────────────
async def test_connectors_are_listed_with_health_and_counts(api: ApiWorld) -> None:
    made = [await connect(api, connector="stripe", secrets={"webhook_secret": "s" * 20}) for _ in range(3)]
    page = (await api.ask("GET", "/v1/connectors?limit=2")).json
    assert [one["id"] for one in page["data"]] == [made[2]["id"], made[1]["id"]]
    assert page["has_more"] is True
    rest = (await api.ask("GET", f"/v1/connectors?limit=2&cursor={page['next_cursor']}")).json
    assert rest["data"][0]["id"] == made[0]["id"]
    one = page["data"][0]
    assert (one["secrets"], one["status"], one["counts"]["received"]) == (["webhook_secret"], "healthy", 0)
    assert "s" * 20 not in json.dumps(page)
    available = (await api.ask("GET", "/v1/connectors/available")).json
    assert {known["name"] for known in available["data"]} >= {"stripe", "http_json"}


async def test_a_connection_is_its_accounts_alone(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe")
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/refresh", None),
    ):
        answer = await api.ask_b(method, f"/v1/connectors/{made['id']}{path}", body)
        assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert (await api.ask_b("GET", "/v1/connectors")).json["data"] == []
    key = (await api.ask("POST", "/v1/keys", {"name": "n", "scopes": ["read:connectors"]})).data["key"]
    assert (await api.ask("GET", "/v1/connectors", key=key)).status == 200
    for method, path in (("POST", ""), ("PATCH", f"/{made['id']}"), ("DELETE", f"/{made['id']}")):
        answer = await api.ask(method, f"/v1/connectors{path}", {"connector": "stripe", "name": "x"}, key=key)
        assert (answer.status, answer.error["code"]) == (403, "forbidden")


async def test_a_connection_is_made_once_under_its_key(api: ApiWorld) -> None:
    wanted, headers = {"connector": "stripe", "name": "once"}, {"idempotency-key": "connect-once"}
    first, second = [await api.ask("POST", "/v1/connectors", wanted, headers=headers) for _ in range(2)]
    assert first.body == second.body
    assert second.headers["idempotency-replayed"] == "true"
    other = await api.ask("POST", "/v1/connectors", wanted | {"name": "other"}, headers=headers)
    assert (other.status, other.error["code"]) == (409, "idempotency_conflict")


async def test_of_two_changes_at_once_one_is_told_of_the_other(api: ApiWorld) -> None:
    made = await connect(api, connector="stripe")
    path = f"/v1/connectors/{made['id']}"
    both = await asyncio.gather(*(api.ask("PATCH", path, {"name": f"n{n}"}) for n in range(2)))
    assert sorted(one.status for one in both) in ([200, 200], [200, 409])


@pytest.mark.parametrize(
    "wrong",
    [
        {"connector": "nothing"},
        {"connector": "remote"},
        {"connector": "remote", "url": "http://10.0.0.1/x"},
        {"connector": "remote", "url": "http://127.0.0.1:1", "secrets": {"signing_secret": "short"}},
        {"connector": "stripe", "url": "https://example.com"},
        {"connector": "stripe", "secrets": {"A-b": "x"}},
        {"connector": "stripe", "config": {"x": "y" * 70_000}},
        {"connector": "stripe", "name": "\0"},
        {"connector": "stripe", "more": 1},
    ],
)
async def test_what_cannot_be_a_connection_is_refused(api: ApiWorld, wrong: dict[str, Any]) -> None:
    answer = await api.ask("POST", "/v1/connectors", {"name": "n", **wrong})
    assert (answer.status, answer.error["code"]) == (400, "validation_failed")
