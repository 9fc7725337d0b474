"""POST /v1/events/fire: who may, what is taken, what the answers say. Seed 001, "Tell OpsIQ what just happened"."""

import orjson
import pytest

from millrace_core import limits, messages, record
from millrace_core.keyring import key_secret
from tests.support import asgi
from tests.support.ingesting import KEY, NOW_MS, RING, Ingesting, key_control
from tests.support.signing import signed_headers

FIRE = "/v1/events/fire"
SHIPPED = {"event": "order.shipped", "payload": {"customer_id": 421, "order_ref": "NB-9182", "carrier": "DHL"}}
PUBLIC, SECRET = "ok_live_" + "p" * 43, "os_live_secret"


@pytest.fixture
def ingesting() -> Ingesting:
    made = Ingesting()
    sealed = RING.seal(SECRET, account="acc_1", name=key_secret("key_2"))
    made.keys.apply("acc_1", "key_2", key_control(PUBLIC, surface="ops", secret=sealed))
    return made


def written(ingesting: Ingesting) -> list[messages.Event]:
    return [messages.decode(output.value, messages.Event) for output in ingesting.log.all()]


async def signed(ingesting: Ingesting, body: bytes, *, nonce: str | None = None, **changes: str) -> asgi.Answer:
    made = signed_headers(PUBLIC, SECRET, "POST", FIRE, body, at_s=NOW_MS / 1000, nonce=nonce)
    headers = {name.lower(): value for name, value in made.items()}
    return await ingesting.post(FIRE, body, key=None, **(headers | changes))


async def test_a_fired_event_is_one_of_the_provider_ops_and_on_the_log(ingesting: Ingesting) -> None:
    answer = await ingesting.post(FIRE, SHIPPED)
    assert answer.status == 202
    (event,) = written(ingesting)
    assert answer.json == {"id": event.id, "event": "order.shipped", "received_at": "2026-05-28T20:26:40.000Z"}
    assert (event.identifier, event.account) == ("e:ops/order.shipped", "acc_1")
    assert orjson.loads(bytes(event.properties)) == SHIPPED["payload"]
    assert dict(ingesting.log.all()[0].headers)[record.SURFACE] == b"ops"
    assert answer.headers["x-millrace-position"].startswith("events:")
    assert (ingesting.bodies.held, ingesting.door.inside) == (0, 0)


async def test_a_payload_keeps_its_bytes_and_may_be_left_out(ingesting: Ingesting) -> None:
    await ingesting.post(FIRE, b'{"event":"a.b","payload":{"n":1e2,  "long":12345678901234567890}}')
    await ingesting.post(FIRE, {"event": "a.b"})
    await ingesting.post(FIRE, {"event": "a.b", "payload": None})
    kept = sorted(bytes(event.properties) for event in written(ingesting))
    assert kept == sorted([b'{"n":1e2,  "long":12345678901234567890}', b"{}", b"{}"])


async def test_a_signed_caller_fires(ingesting: Ingesting) -> None:
    answer = await signed(ingesting, orjson.dumps(SHIPPED))
    assert answer.status == 202
    assert len(written(ingesting)) == 1


async def test_a_signed_request_sent_again_is_refused_whatever_its_idempotency_key(
    ingesting: Ingesting,
) -> None:
    body = orjson.dumps(SHIPPED)
    assert (await signed(ingesting, body, nonce="n" * 20, idempotency_key="once")).status == 202
    for changes in ({}, {"idempotency_key": "once"}, {"idempotency_key": "another"}):
        again = await signed(ingesting, body, nonce="n" * 20, **changes)
        assert (again.status, again.json["error"]["code"]) == (401, "nonce_reused")
    assert len(written(ingesting)) == 1
    assert (await signed(ingesting, body, nonce="m" * 20)).status == 202


async def test_an_idempotency_key_stands_over_the_nonce(ingesting: Ingesting) -> None:
    body = orjson.dumps(SHIPPED)
    ids = {(await signed(ingesting, body, nonce=nonce * 20, idempotency_key="once")).json["id"] for nonce in ("a", "b")}
    assert len(ids) == 1
    bearer = {(await ingesting.post(FIRE, SHIPPED, idempotency_key="once")).json["id"] for _ in range(2)}
    assert len(bearer) == 1
    assert bearer.isdisjoint(ids), "another key's scope"


@pytest.mark.parametrize("change", ["body", "secret", "time", "key"])
async def test_a_signature_that_proves_nothing_is_401_and_nothing_is_written(ingesting: Ingesting, change: str) -> None:
    body = orjson.dumps(SHIPPED)
    secret = "other" if change == "secret" else SECRET
    at_s = NOW_MS / 1000 - (limits.SIGNED_REQUEST_S + 60 if change == "time" else 0)
    public = "ok_live_unknown" if change == "key" else PUBLIC
    headers = {n.lower(): v for n, v in signed_headers(public, secret, "POST", FIRE, body, at_s=at_s).items()}
    answer = await ingesting.post(FIRE, body + b" " if change == "body" else body, key=None, **headers)
    assert (answer.status, answer.json["error"]["code"]) == (401, "unauthorized")
    assert SECRET not in answer.body.decode()
    assert written(ingesting) == []
    assert (ingesting.bodies.held, ingesting.door.inside) == (0, 0)


async def test_the_public_half_of_a_key_that_signs_is_no_bearer(ingesting: Ingesting) -> None:
    assert (await ingesting.post(FIRE, SHIPPED, key=PUBLIC)).status == 401


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"[]", "one JSON object"),
        (b"{}", "`event` is missing"),
        (b'{"event":1}', "`event` must be a string"),
        (b'{"event":""}', "event name"),
        (b'{"event":"a b"}', "event name"),
        (b'{"event":"a.b","payload":[]}', "`payload` must be an object"),
        (b'{"event":"a.b","payload":"x"}', "`payload` must be an object"),
        (b'{"event":"a.b","payload":{"x":"\xff"}}', "UTF-8"),
        (b'{"event":"a.b","payload":' + b'{"a":' * 200 + b"1" + b"}" * 201, "deep"),
    ],
)
async def test_a_body_that_breaks_a_rule_is_refused_in_the_ops_envelope(
    ingesting: Ingesting, body: bytes, named: str
) -> None:
    answer = await ingesting.post(FIRE, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "validation_failed"), answer.body
    assert named in answer.json["error"]["message"]
    assert set(answer.json["error"]) == {"code", "message", "request_id"}
    assert written(ingesting) == []


async def test_other_refusals_are_in_the_ops_envelope_too(ingesting: Ingesting) -> None:
    async def code(expected: int, answer: asgi.Answer) -> str:
        assert answer.status == expected
        return str(answer.json["error"]["code"])

    assert await code(401, await ingesting.post(FIRE, SHIPPED, key=None)) == "unauthorized"
    assert await code(405, await asgi.ask(ingesting.app, "GET", FIRE, headers={}, body=b"")) == "method_not_allowed"
    big = {"event": "a.b", "payload": {"x": "x" * limits.BODY_BYTES_MAX}}
    assert await code(413, await ingesting.post(FIRE, big)) == "payload_too_large"
    assert await code(415, await ingesting.post(FIRE, b"x", content_type="text/csv")) == "unsupported_media_type"
    ingesting.keys.apply("acc_1", "key_3", key_control("mr_live_reader", scopes=("read:events",)))
    assert await code(403, await ingesting.post(FIRE, SHIPPED, key="mr_live_reader")) == "forbidden"
    ingesting.view.age_s = 5.0
    assert await code(503, await ingesting.post(FIRE, SHIPPED)) == "unavailable"


async def test_it_has_a_rate_of_its_own(ingesting: Ingesting) -> None:
    ingesting.keys.apply("acc_1", "key_1", key_control(KEY, plan="free"))
    answer = await ingesting.post(FIRE, SHIPPED)
    assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("1000", "999")
