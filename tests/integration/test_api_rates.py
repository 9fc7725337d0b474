"""Rate limits at a real API: by key, on every answer, in the unit of the document that the path belongs to."""

import secrets

import pytest

from millrace_cli import bootstrap
from millrace_core.clock import SystemClock
from tests.support.api_world import ApiWorld
from tests.support.user import Answer
from tests.support.waiting import eventually


async def new_key(api: ApiWorld, plan: str, *, scopes: tuple[str, ...] = ("read:jobs",)) -> str:
    """A key of a new account with this plan, in force; asking whether it is has counted once or more."""
    wanted = bootstrap.Wanted("counted", "automation", scopes=scopes)
    made = await bootstrap.create_key(api.seals, account=f"rate-{secrets.token_hex(4)}", plan=plan, wanted=wanted)

    async def is_known() -> bool:
        return (await api.ask("GET", "/v1/jobs", key=made.key)).status != 401

    await eventually(is_known, what="the key is in force")
    return made.key


def rate(answer: Answer) -> tuple[int, int, int]:
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    limit, remaining, reset = (int(answer.headers[name]) for name in names)
    return limit, remaining, reset


async def test_a_key_has_its_plans_rate_and_then_429(api: ApiWorld) -> None:
    key = await new_key(api, "free")
    statuses: list[int] = []
    while not statuses or statuses[-1] == 200:
        answer = await api.ask("GET", "/v1/jobs", key=key)
        statuses.append(answer.status)
        assert rate(answer)[0] == 60
        assert rate(answer)[1] == max(59 - len(statuses), 0)
    assert statuses[-1] == 429
    assert len(statuses) <= 60
    assert answer.error["code"] == "RATE_LIMITED"
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert abs(rate(answer)[2] - SystemClock().now_ms() / 1000) <= 61
    other = await new_key(api, "free")
    assert (await api.ask("GET", "/v1/jobs", key=other)).status == 200


async def test_every_answer_carries_the_rate(api: ApiWorld) -> None:
    key = await new_key(api, "pro")
    answers = [
        await api.ask("GET", "/v1/jobs", key=key),
        await api.ask("GET", "/v1/jobs/job_none", key=key),
        await api.ask("GET", "/v1/jobs?limit=0", key=key),
        await api.ask("GET", "/v1/keys", key=key),
    ]
    assert [answer.status for answer in answers] == [200, 404, 400, 403]
    assert [rate(answer)[0] for answer in answers] == [300] * 4
    left = [rate(answer)[1] for answer in answers]
    assert left == [left[0] - n for n in range(4)]
    for answer in (
        await api.ask("GET", "/v1/jobs", key="mr_live_unknown"),
        await api.ask("GET", "/v1/nothing", key=key),
        await api.ask("PUT", "/v1/jobs", key=key),
        await api.ask("POST", "/v1/jobs", raw=b"x" * 1_100_000, key=key),
        await api.ask("GET", "/openapi.json"),
        await api.ask("GET", "/docs"),
    ):
        assert rate(answer)[0] > 0, answer.status


async def test_a_key_without_a_practical_limit_says_so(api: ApiWorld) -> None:
    assert rate(await api.ask("GET", "/v1/jobs"))[:2] == (6_000_000, 6_000_000)


@pytest.mark.parametrize(
    ("path", "per_s"), [("/api/v1/nothing", 1_000), ("/v1/nothing", 1), ("/v1/tickets/nothing", 1)]
)
async def test_the_reset_is_in_the_documents_unit(api: ApiWorld, path: str, per_s: int) -> None:
    reset = rate(await api.ask("GET", path))[2]
    assert abs(reset / per_s - SystemClock().now_ms() / 1000) <= 120
