"""What a request passes with a valid key: counted once whatever its route asks, told on every answer, never in the way
when the counts cannot be reached."""

from collections.abc import Sequence
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from millrace_core.clock import ManualClock
from millrace_core.errors import Retry
from millrace_core.keyring import KeyRing, key_secret, new_ring_entry
from millrace_core.request_signing import Signed
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys
from millrace_web.authentication import Authenticator, require
from millrace_web.caller_rates import CallerRates, RateHeaders
from millrace_web.entrance import Entrance
from millrace_web.envelopes import OPS, install_errors
from millrace_web.rate_limits import Verdict
from millrace_web.rate_plans import Window
from millrace_web.request_ids import RequestIds
from millrace_web.signed_requests import Signatures
from millrace_web.sliding_windows import Counted, OwnWindows, Windows
from tests.support import asgi
from tests.support.ingesting import KEY, NOW_MS, PEPPER, key_control
from tests.support.signing import signed_headers

PUBLIC, SECRET = "ok_live_" + "p" * 43, "os_live_" + "s" * 43


class NoStore:
    """A store that does not answer."""

    async def take(self, key: str, windows: Sequence[Window]) -> Sequence[Counted]:
        raise Retry("away")


class Spent:
    """Nonces in memory."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    async def spend(self, key: ApiKey, signed: Signed) -> bool:
        name = (key.account, key.id, signed.nonce)
        self.seen.append(name)
        return self.seen.count(name) == 1


class World:
    def __init__(self, *, plan: str = "free", windows: Windows | None = None, per_s: int = 1) -> None:
        self.clock = ManualClock(NOW_MS)
        keys = ApiKeys(pepper=PEPPER, clock=self.clock)
        ring = KeyRing.parse(new_ring_entry("a"))
        sealed = ring.seal(SECRET, account="acc_1", name=key_secret("key_2"))
        keys.apply("acc_1", "key_1", key_control(scopes=("read:jobs",), plan=plan))
        keys.apply("acc_1", "key_2", key_control(PUBLIC, scopes=("read:jobs",), plan=plan, secret=sealed))
        self.uncounted = 0
        self.spent = Spent()
        app = FastAPI(openapi_url=None)
        app.state.authenticator = Authenticator(keys, Accounts(), signatures=Signatures(ring, self.clock))
        rates = CallerRates(windows or OwnWindows(self.clock), self.clock, uncounted=self._uncounted)
        app.state.entrance = Entrance(rates, self.spent)
        install_errors(app, lambda _: OPS)

        @app.get("/v1/jobs", dependencies=[Depends(require(None))])
        async def jobs(me: Annotated[ApiKey, Depends(require("read:jobs"))]) -> str:
            return me.id

        @app.get("/v1/keys", dependencies=[Depends(require("manage:keys"))])
        async def keys_() -> None: ...

        self.app = RequestIds(RateHeaders(app, uncounted=lambda: Verdict(7, 7, 1), per_s_of=lambda _: per_s))

    def _uncounted(self) -> None:
        self.uncounted += 1

    async def get(self, path: str = "/v1/jobs", key: str | None = KEY, **headers: str) -> asgi.Answer:
        given = {} if key is None else {"authorization": f"Bearer {key}"}
        return await asgi.ask(self.app, "GET", path, headers=given | headers)

    async def signed(self, nonce: str) -> asgi.Answer:
        headers = signed_headers(PUBLIC, SECRET, "GET", "/v1/jobs", at_s=NOW_MS / 1000, nonce=nonce)
        return await self.get(key=None, **headers)


def rate(answer: asgi.Answer) -> tuple[int, int, int]:
    return (
        int(answer.headers["x-ratelimit-limit"]),
        int(answer.headers["x-ratelimit-remaining"]),
        int(answer.headers["x-ratelimit-reset"]),
    )


async def test_a_request_counts_once_whatever_its_route_asks() -> None:
    world = World()
    assert rate(await world.get()) == (60, 59, NOW_MS // 1000 + 60)
    assert rate(await world.get()) == (60, 58, NOW_MS // 1000 + 60)


async def test_over_the_rate_it_is_429_and_says_when_to_come_back() -> None:
    world = World()
    for _ in range(60):
        assert (await world.get()).status == 200
    refused = await world.get()
    assert refused.status == 429
    assert refused.json["error"]["code"] == "rate_limited"
    assert rate(refused)[:2] == (60, 0)
    assert refused.headers["retry-after"] == "60"
    world.clock.advance(60)
    assert (await world.get()).status == 200


async def test_errors_say_it_too() -> None:
    world = World()
    assert (await world.get("/v1/keys")).status == 403
    assert rate(await world.get("/v1/keys"))[1] == 58
    for answer in (await world.get(key=None), await world.get(key="mr_live_unknown"), await world.get("/v1/nothing")):
        assert answer.status in {401, 404}
        assert rate(answer) == (7, 7, 1)


async def test_the_window_with_the_fewest_left_is_shown() -> None:
    world = World()
    for _ in range(950 // 50):
        for _ in range(50):
            assert (await world.get()).status == 200
        world.clock.advance(60)
    assert rate(await world.get())[:2] == (1_000, 49)


async def test_the_reset_is_in_the_documents_unit() -> None:
    assert rate(await World(per_s=1_000).get())[2] == NOW_MS + 60_000


async def test_without_the_store_requests_pass_uncounted() -> None:
    world = World(windows=NoStore())
    for _ in range(100):
        answer = await world.get()
        assert answer.status == 200
        assert rate(answer)[:2] == (60, 60)
    assert world.uncounted == 100


async def test_a_key_without_a_practical_limit_asks_no_store() -> None:
    world = World(plan="enterprise", windows=NoStore())
    assert rate(await world.get())[0] == 6_000_000
    assert world.uncounted == 0


@pytest.mark.parametrize("plan", ["free", "enterprise"])
async def test_a_nonce_is_taken_once(plan: str) -> None:
    world = World(plan=plan)
    assert (await world.signed("nonce-0001")).json == "key_2"
    again = await world.signed("nonce-0001")
    assert (again.status, again.json["error"]["code"]) == (401, "nonce_reused")
    assert (await world.signed("nonce-0002")).status == 200
    assert world.spent.seen == [("acc_1", "key_2", f"nonce-000{n}") for n in (1, 1, 2)]


async def test_over_the_rate_no_nonce_is_spent() -> None:
    world = World()
    for n in range(60):
        await world.signed(f"nonce-{n:04}")
    assert (await world.signed("nonce-last")).status == 429
    assert len(world.spent.seen) == 60
