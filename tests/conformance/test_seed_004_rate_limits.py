"""Seed 004, "Rate Limits": the limits by plan, the headers, and what is said over the limit."""

import secrets

import pytest

from millrace_cli import bootstrap
from millrace_core.clock import SystemClock
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually


async def key_of(api: ApiWorld, plan: str) -> str:
    """A key in force of a new account with this plan."""
    name = f"plan-{secrets.token_hex(4)}"
    made = await bootstrap.create_key(
        api.seals, account=name, plan=plan, wanted=bootstrap.Wanted("x", "automation", scopes=("*",))
    )

    async def is_known() -> bool:
        return (await api.ask("GET", "/v1/jobs", key=made.key)).status == 200

    await eventually(is_known, what="the key is in force")
    return made.key


@pytest.mark.parametrize(("plan", "per_minute"), [("free", 60), ("starter", 120), ("pro", 300), ("business", 600)])
async def test_limits_by_plan(api: ApiWorld, plan: str, per_minute: int) -> None:
    key = await key_of(api, plan)
    answer = await api.ask("GET", "/v1/jobs", key=key)
    assert answer.headers["X-RateLimit-Limit"] == str(per_minute)
    left = int(answer.headers["X-RateLimit-Remaining"])
    passed = 0
    while (answer := await api.ask("GET", "/v1/jobs", key=key)).status == 200:
        passed += 1
    assert passed == left, "as many as the header said"
    assert answer.status == 429


async def test_rate_limit_headers(api: ApiWorld) -> None:
    """`X-RateLimit-Reset: 1640000000`: Unix seconds."""
    key = await key_of(api, "pro")
    first, second = [await api.ask("GET", "/v1/jobs", key=key) for _ in range(2)]
    remaining = [int(answer.headers["X-RateLimit-Remaining"]) for answer in (first, second)]
    assert remaining[1] == remaining[0] - 1
    reset, now = int(second.headers["X-RateLimit-Reset"]), SystemClock().now_ms() / 1000
    assert now - 1 <= reset <= now + 61


async def test_rate_limited(api: ApiWorld) -> None:
    """`RATE_LIMITED | Too many requests`; the page's client waits and tries again."""
    key = await key_of(api, "free")
    while (answer := await api.ask("GET", "/v1/jobs", key=key)).status == 200:
        pass
    assert answer.status == 429
    assert answer.json["success"] is False
    assert answer.error["code"] == "RATE_LIMITED"
    assert answer.error["message"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.headers["X-RateLimit-Remaining"] == "0"
