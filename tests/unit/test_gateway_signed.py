"""Signed requests to the ingest routes: proven with the body before anything becomes of it, as at `/v1/events/fire`."""

from typing import Any

import orjson
import pytest

from millrace_core import limits
from millrace_core.keyring import key_secret
from millrace_core.request_signing import Signed
from millrace_gateway.nonces import Nonces
from millrace_web.api_keys import ApiKey
from millrace_web.errors import ApiError
from millrace_web.signed_requests import SignedCall
from tests.support import asgi
from tests.support.ingesting import BATCH, NOW_MS, PUBLISH, RING, Ingesting, key_control, post_body
from tests.support.signing import signed_headers

PUBLIC, SECRET = "ok_live_" + "p" * 43, "os_live_" + "s" * 43
ROUTES = [(PUBLISH, orjson.dumps(post_body())), (BATCH, orjson.dumps([post_body(), post_body()]))]


class World(Ingesting):
    """The surface, with a key that signs."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        sealed = RING.seal(SECRET, account="acc_1", name=key_secret("key_2"))
        self.keys.apply("acc_1", "key_2", key_control(PUBLIC, surface="ops", secret=sealed, **changes))

    async def signed(
        self,
        path: str,
        body: bytes,
        *,
        sent: bytes | None = None,
        nonce: str = "nonce-0001",
        idempotency_key: str | None = None,
    ) -> asgi.Answer:
        made = signed_headers(PUBLIC, SECRET, "POST", path, body, at_s=NOW_MS / 1000, nonce=nonce)
        headers = {name.lower(): value for name, value in made.items()}
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        return await self.post(path, body if sent is None else sent, key=None, **headers)

    def is_empty(self) -> bool:
        return not self.log.all() and (self.bodies.held, self.door.inside) == (0, 0)


def ids_of(answer: asgi.Answer) -> list[str]:
    return [answer.json["eventId"]] if "eventId" in answer.json else [one["eventId"] for one in answer.json["results"]]


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_is_signed_is_taken_once_whatever_its_idempotency_key(path: str, body: bytes) -> None:
    world = World()
    first = await world.signed(path, body)
    assert first.status == (202 if path == PUBLISH else 200)
    written = len(world.log.all())
    for again in (await world.signed(path, body), await world.signed(path, body, idempotency_key="another")):
        assert (again.status, again.json["code"]) == (401, "NONCE_REUSED")
    assert len(world.log.all()) == written
    assert len(set(ids_of(first))) == len(ids_of(first))
    assert set(ids_of(await world.signed(path, body, nonce="nonce-0002"))).isdisjoint(ids_of(first))
    assert (world.bodies.held, world.door.inside) == (0, 0)


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_another_body_is_401_and_nothing_becomes_of_it(path: str, body: bytes) -> None:
    world = World()
    refused = await world.signed(path, body, sent=body + b" ")
    assert (refused.status, refused.json["code"]) == (401, "UNAUTHORIZED")
    assert world.is_empty()


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_only_who_proved_himself_hears_of_the_scope(path: str, body: bytes) -> None:
    world = World(scopes=("read:jobs",))
    assert (await world.signed(path, body, sent=body + b" ")).status == 401
    assert (await world.signed(path, body)).status == 403
    assert world.is_empty()


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_it_is_counted_when_it_is_proven(path: str, body: bytes) -> None:
    world = World(plan="free")
    for n in range(60):
        await world.signed(path, body, sent=b"{}", nonce=f"wrong-{n:04}")
    answers = [await world.signed(path, body, nonce=f"right-{n:04}") for n in range(61)]
    assert [answer.status for answer in answers[:-1]] == [answers[0].status] * 60
    assert answers[-1].status == 429
    assert answers[0].headers["x-ratelimit-remaining"] == "59"


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_another_gateway_took_is_the_same_event_here(path: str, body: bytes) -> None:
    one, other = World(), World()
    assert ids_of(await one.signed(path, body)) == ids_of(await other.signed(path, body))


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_tried_again_under_its_idempotency_key_it_is_the_same(path: str, body: bytes) -> None:
    world = World()
    answers = [await world.signed(path, body, nonce=f"try-{n:08}", idempotency_key="once") for n in range(2)]
    assert ids_of(answers[0]) == ids_of(answers[1])


async def test_only_what_is_proven_spends_its_nonce() -> None:
    world, body = World(), orjson.dumps(post_body())
    assert (await world.signed(PUBLISH, body, sent=body + b" ")).status == 401
    assert (await world.signed(PUBLISH, body)).status == 202


def test_nonces_are_forgotten_in_time_and_the_oldest_beyond_the_bound() -> None:
    nonces = Nonces(kept_max=2)
    for nonce in ("a", "b", "c"):
        nonces.spend(call_of(nonce), now_ms=NOW_MS)
    assert len(nonces) == 2
    nonces.spend(call_of("a"), now_ms=NOW_MS)  # the oldest, forgotten
    nonces.spend(call_of("a", account="acc_2"), now_ms=NOW_MS)
    with pytest.raises(ApiError) as refused:
        nonces.spend(call_of("a"), now_ms=NOW_MS + limits.GATEWAY_NONCE_S * 1000 - 1)
    assert (refused.value.status, refused.value.code) == (401, "NONCE_REUSED")
    nonces.spend(call_of("a"), now_ms=NOW_MS + limits.GATEWAY_NONCE_S * 1000)
    assert len(nonces) == 1


def call_of(nonce: str, *, account: str = "acc_1") -> SignedCall:
    key = ApiKey(id="key_2", account=account, name="", digest="", scopes=frozenset(), plan="free", surface="ops")
    return SignedCall(key, Signed(PUBLIC, str(NOW_MS // 1000), nonce, ""), "POST", b"/", RING)
