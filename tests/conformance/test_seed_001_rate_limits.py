"""Seed 001, "API surface at a glance": the column "Rate limit", for a signed caller whatever his account's plan."""

import secrets

import pytest

from millrace_cli import bootstrap
from tests.support.api_world import ApiWorld
from tests.support.ingesting import Ingesting, key_control
from tests.support.signing import signed_headers
from tests.support.waiting import eventually

TABLE = [
    ("POST", "/v1/actions/run", 200),
    ("GET", "/v1/customers/{id}", 2_000),
    ("GET", "/v1/tickets", 2_000),
    ("POST", "/v1/webhooks/test", 60),
    ("GET", "/v1/connectors", 2_000),
]


@pytest.mark.parametrize(("method", "path", "per_minute"), TABLE)
async def test_the_endpoint_has_the_pages_rate(api: ApiWorld, method: str, path: str, per_minute: int) -> None:
    name, wanted = f"ops-{secrets.token_hex(4)}", bootstrap.Wanted("x", "ops", scopes=("*",))
    made = await bootstrap.create_key(api.seals, account=name, plan="free", wanted=wanted)
    target = path.replace("{id}", "421")

    async def asked() -> list[int]:
        raw = b"{}" if method == "POST" else b""
        headers = {"authorization": "", **signed_headers(made.key, made.secret or "", method, target, raw)}
        answer = await api.ask(method, target, raw=raw or None, headers=headers)
        if answer.status == 401:
            return []
        return [int(answer.headers[f"X-RateLimit-{part}"]) for part in ("Limit", "Remaining")]

    limit, first = await eventually(asked, what="the key is in force")
    assert limit == per_minute
    assert (await asked())[1] == first - 1, "counted for this endpoint alone"


async def test_events_fired_have_the_pages_rate() -> None:
    """`POST /v1/events/fire`: 1000 / min."""
    ingesting = Ingesting()
    ingesting.keys.apply("acc_2", "key_2", key_control("mr_live_free", account="acc_2", plan="free"))
    body = {"event": "order.shipped", "payload": {"customer_id": 421}}
    answer = await ingesting.post("/v1/events/fire", body, key="mr_live_free")
    assert answer.status == 202, answer.body
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("1000", "999")
