"""Signed requests to the ingest routes: proven with the body before anything becomes of it, as at `/v1/events/fire`."""

from typing import Any

import orjson
import pytest

from millrace_core.keyring import key_secret
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
        self, path: str, body: bytes, *, sent: bytes | None = None, nonce: str = "nonce-0001"
    ) -> asgi.Answer:
        made = signed_headers(PUBLIC, SECRET, "POST", path, body, at_s=NOW_MS / 1000, nonce=nonce)
        headers = {name.lower(): value for name, value in made.items()}
        return await self.post(path, body if sent is None else sent, key=None, **headers)

    def is_empty(self) -> bool:
        return not self.log.all() and (self.bodies.held, self.door.inside) == (0, 0)


def ids_of(answer: asgi.Answer) -> list[str]:
    return [answer.json["eventId"]] if "eventId" in answer.json else [one["eventId"] for one in answer.json["results"]]


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_is_signed_is_taken_and_sent_again_it_is_the_same(path: str, body: bytes) -> None:
    world = World()
    first, again = [await world.signed(path, body) for _ in range(2)]
    assert first.status == again.status == (202 if path == PUBLISH else 200)
    assert ids_of(first) == ids_of(again)
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
