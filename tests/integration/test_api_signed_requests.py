"""Requests signed instead of carrying a key, at a real API: taken once each, and never half believed."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from millrace_api.application.database import Database
from millrace_api.application.nonces import SpentNonces
from millrace_cli import bootstrap
from millrace_core import limits
from millrace_core.clock import ManualClock, SystemClock
from millrace_core.request_signing import Signed
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool
from millrace_web.api_keys import ApiKey
from tests.support.api_world import ApiWorld
from tests.support.signing import signed_headers
from tests.support.user import Answer
from tests.support.waiting import eventually


@dataclass(frozen=True, slots=True)
class Signer:
    """A client with a key pair of account A."""

    api: ApiWorld
    key: str
    secret: str

    async def ask(self, method: str, target: str, body: Any = None, **signing: Any) -> Answer:
        raw = b"" if body is None else orjson.dumps(body)
        headers = signed_headers(self.key, self.secret, method, target, raw, **signing)
        return await self.send(method, target, raw, headers)

    async def send(self, method: str, target: str, raw: bytes, headers: Any) -> Answer:
        # The world's own key goes out too: a signed request is judged by its signature alone.
        return await self.api.ask(method, target, raw=raw or None, headers=headers)


@pytest.fixture(scope="module")
async def signer(api: ApiWorld) -> Signer:
    wanted = bootstrap.Wanted("signs", "ops", scopes=("read:jobs", "manage:jobs", "publish:events"))
    made = await bootstrap.create_key(api.seals, account="a", plan="enterprise", wanted=wanted)
    assert made.secret is not None
    signer = Signer(api, made.key, made.secret)

    async def is_known() -> bool:
        return (await signer.ask("GET", "/v1/jobs")).status == 200

    await eventually(is_known, what="the key is in force")
    return signer


async def test_a_signed_request_reads_and_writes(signer: Signer) -> None:
    step = {"type": "transform", "config": {"value": 1}}
    made = await signer.ask("POST", "/v1/jobs", {"name": "Grüße", "step": step})
    assert made.status == 201
    found = await signer.ask("GET", f"/v1/jobs/{made.data['id']}")
    assert found.data["name"] == "Grüße"
    assert (await signer.ask("GET", "/v1/jobs?limit=5")).status == 200


async def test_a_nonce_is_taken_once(signer: Signer) -> None:
    nonce = secrets.token_hex(8)
    assert (await signer.ask("GET", "/v1/jobs", nonce=nonce)).status == 200
    again = await signer.ask("GET", "/v1/jobs", nonce=nonce)
    assert (again.status, again.error["code"]) == (401, "NONCE_REUSED")
    other = await signer.ask("GET", "/v1/jobs?limit=1", nonce=nonce)
    assert other.status == 401, "whatever it is used for"


async def test_of_many_at_once_with_one_nonce_one_passes(signer: Signer) -> None:
    nonce = secrets.token_hex(8)
    answers = await asyncio.gather(*(signer.ask("GET", "/v1/jobs", nonce=nonce) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 9


async def test_a_retry_has_a_nonce_of_its_own_and_the_same_idempotency_key(signer: Signer) -> None:
    target, raw = "/v1/dead-letters/redrive", b'{"reason": "there is none like it"}'
    key = secrets.token_hex(8)
    answers = []
    for _ in range(2):
        headers = signed_headers(signer.key, signer.secret, "POST", target, raw)
        answers.append(await signer.send("POST", target, raw, {**headers, "Idempotency-Key": key}))
    assert [answer.status for answer in answers] == [200, 200]
    assert ["Idempotency-Replayed" in answer.headers for answer in answers] == [False, True]


async def test_what_was_not_signed_is_refused_whatever_else_it_carries(signer: Signer) -> None:
    headers = signed_headers(signer.key, signer.secret, "POST", "/v1/jobs", b"{}")
    for method, target, raw in (
        ("POST", "/v1/jobs", b'{"name": "other"}'),
        ("POST", "/v1/jobs?dry=1", b"{}"),
        ("POST", "/v1/chains", b"{}"),
    ):
        refused = await signer.send(method, target, raw, headers)
        assert (refused.status, refused.error["code"]) == (401, "UNAUTHORIZED")
        assert "WWW-Authenticate" in refused.headers
        assert signer.secret.encode() not in refused.body


async def test_a_request_is_refused_for_its_age(signer: Signer) -> None:
    now_s = SystemClock().now_ms() / 1000
    for at_s in (now_s - limits.SIGNED_REQUEST_S - 5, now_s + limits.SIGNED_REQUEST_S + 5):
        refused = await signer.ask("GET", "/v1/jobs", at_s=at_s)
        assert refused.status == 401
        assert "X-OpsIQ-Timestamp" in refused.error["message"]


async def test_a_header_that_is_missing_is_named(signer: Signer) -> None:
    headers = signed_headers(signer.key, signer.secret, "GET", "/v1/jobs")
    for missing in headers:
        rest = {name: value for name, value in headers.items() if name != missing}
        answer = await signer.send("GET", "/v1/jobs", b"", rest)
        if missing == "X-OpsIQ-Key":
            assert answer.status == 200, "then it is no signed request, and its Bearer holds"
        else:
            assert answer.status == 401
            assert missing in answer.error["message"]


async def test_the_scope_holds_as_for_any_key(signer: Signer) -> None:
    refused = await signer.ask("GET", "/v1/keys")
    assert (refused.status, refused.error["details"]) == (403, {"scope": "manage:keys"})


async def test_neither_half_is_a_bearer(signer: Signer) -> None:
    for text in (signer.key, signer.secret):
        assert (await signer.api.ask("GET", "/v1/jobs", key=text)).status == 401


async def test_a_nonce_is_forgotten_when_its_request_would_be_refused_anyway(database: str) -> None:
    await migrate(database)
    clock = ManualClock(1_780_000_000_000)
    key = ApiKey("key_1", "acc_1", "k", "", frozenset(), "free", "ops")
    async with open_pool(database, name="test") as pool:
        nonces = SpentNonces(Database(pool), clock)

        async def spend(nonce: str, account: ApiKey = key) -> bool:
            signed = Signed("ok", str(clock.now_ms() // 1000), nonce, "")
            return await nonces.spend(account, signed)

        for n in range(25):
            assert await spend(f"n{n}")
        assert not await spend("n0")
        other = ApiKey("key_1", "acc_2", "k", "", frozenset(), "free", "ops")
        assert await spend("n0", other), "another account's nonces are its own"
        clock.advance(limits.SIGNED_REQUEST_S + 2)
        assert await spend("n0"), "as good as new"
        for n in range(3):
            assert await spend(f"m{n}")
        assert await pool.fetchval("SELECT count(*) FROM control.spent_nonces WHERE account = 'acc_1'") == 4
        assert await pool.fetchval("SELECT count(*) FROM control.spent_nonces WHERE account = 'acc_2'") == 1
