"""Seed 003, "Rate limits": per API key, by plan, in a sliding window."""

import secrets

import pytest

from millrace_cli import bootstrap
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually


@pytest.mark.parametrize(("plan", "per_minute"), [("free", 60), ("cloud", 300), ("team", 1_000)])
async def test_limits_vary_by_plan(api: ApiWorld, plan: str, per_minute: int) -> None:
    name, wanted = f"agents-{secrets.token_hex(4)}", bootstrap.Wanted("x", "agents", scopes=("read:jobs",))
    made = await bootstrap.create_key(api.seals, account=name, plan=plan, wanted=wanted)

    async def is_known() -> bool:
        return (await api.ask("GET", "/v1/jobs", key=made.key)).status == 200

    await eventually(is_known, what="the key is in force")
    answer = await api.ask("GET", "/v1/jobs", key=made.key)
    assert answer.headers["X-RateLimit-Limit"] == str(per_minute)


async def test_when_exceeded_it_is_429_with_retry_after_and_each_key_counts_for_itself(api: ApiWorld) -> None:
    name, wanted = f"agents-{secrets.token_hex(4)}", bootstrap.Wanted("x", "agents", scopes=("read:jobs",))
    keys = [(await bootstrap.create_key(api.seals, account=name, plan="free", wanted=wanted)).key for _ in range(2)]

    async def all_known() -> bool:
        return all([(await api.ask("GET", "/v1/jobs", key=key)).status == 200 for key in keys])

    await eventually(all_known, what="the keys are in force")
    while (answer := await api.ask("GET", "/v1/jobs", key=keys[0])).status == 200:
        pass
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await api.ask("GET", "/v1/jobs", key=keys[1])).status == 200
