"""POST /ingest/event/publish: what is taken, what is refused, and what the answers say."""

import asyncio

import pytest

from millrace_core import limits, messages, record
from tests.support import asgi
from tests.support.ingesting import KEY, NOW_MS, PUBLISH, Ingesting, key_control, post_body
from tests.support.waiting import eventually


@pytest.fixture
def ingesting() -> Ingesting:
    return Ingesting()


async def test_a_post_is_on_the_log_when_it_is_answered(ingesting: Ingesting) -> None:
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 202
    assert set(answer.json) == {"success", "eventId", "identifier", "receivedAt"}
    assert answer.json["success"] is True
    assert answer.json["identifier"] == "e:custom/user-signup"
    assert answer.json["receivedAt"] == "2026-05-28T20:26:40.000Z"
    (output,) = ingesting.log.all()
    event = messages.decode(output.value, messages.Event)
    assert event.id == answer.json["eventId"]
    assert event.account == "acc_1"
    assert event.received_at == NOW_MS
    assert output.key == b"e:custom/user-signup"
    headers = dict(output.headers)
    assert headers[record.ACCOUNT] == b"acc_1"
    assert headers[record.ID] == event.id.encode()
    assert answer.headers["x-millrace-position"].startswith("events:")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert ingesting.told.counts == {"accepted": 1}
    assert (ingesting.bodies.held, ingesting.door.inside) == (0, 0)


async def test_properties_keep_their_bytes(ingesting: Ingesting) -> None:
    properties = b'{"a": 1e2, "b":1.10,\n "c":"\\u0000\\/", "a":12345678901234567890}'
    await ingesting.post(PUBLISH, b'{"eventType":{"provider":"p","name":"n"},"properties":' + properties + b"}")
    (output,) = ingesting.log.all()
    start = int(dict(output.headers)[record.PAYLOAD])
    assert output.value is not None
    assert output.value[start:-1] == properties


async def test_the_answer_waits_for_the_ack(ingesting: Ingesting) -> None:
    ingesting.log.hold()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ingesting.post(PUBLISH, post_body()))
        await eventually(lambda: ingesting.log.in_flight == 1)
        assert not asked.done()
        ingesting.log.release()
    assert asked.result().status == 202


async def test_one_unique_key_is_one_event_id(ingesting: Ingesting) -> None:
    first = await ingesting.post(PUBLISH, post_body(uniqueKey="u"))
    ingesting.clock.advance(60)
    again = await ingesting.post(PUBLISH, post_body(uniqueKey="u"))
    other = await ingesting.post(PUBLISH, post_body(uniqueKey="v"))
    assert first.json["eventId"] == again.json["eventId"] != other.json["eventId"]


async def test_an_idempotency_key_stands_in_for_a_missing_unique_key(ingesting: Ingesting) -> None:
    ingesting.keys.apply("acc_1", "key_2", key_control("mr_live_other"))
    ids = [
        (await ingesting.post(PUBLISH, post_body(), idempotency_key="i")).json["eventId"],
        (await ingesting.post(PUBLISH, post_body(), idempotency_key="i")).json["eventId"],
        (await ingesting.post(PUBLISH, post_body(), key="mr_live_other", idempotency_key="i")).json["eventId"],
        (await ingesting.post(PUBLISH, post_body(uniqueKey="u"), idempotency_key="i")).json["eventId"],
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3, "another key's scope, and the body's own uniqueKey, are other events"
    assert (await ingesting.post(PUBLISH, post_body(), idempotency_key="i" * 257)).status == 400
    long = await ingesting.post(PUBLISH, post_body(), idempotency_key="i" * 256)
    assert long.status == 202
    stored = messages.decode(ingesting.log.all()[-1].value, messages.Event).unique_key
    assert stored is not None
    assert len(stored) <= limits.UNIQUE_KEY_CHARS_MAX


async def test_an_unordered_identifier_is_spread(ingesting: Ingesting) -> None:
    control = messages.AccountControl(unordered=("e:custom/user-signup",))
    ingesting.accounts.apply("acc_1", "acc_1", messages.encode(control))
    for _ in range(40):
        await ingesting.post(PUBLISH, post_body())
    assert len(ingesting.log.records) == ingesting.log.partitions


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{}", "eventType"),
        (b'{"eventType":{"provider":"p"}}', "name"),
        (b'{"eventType":{"provider":1,"name":"n"}}', "provider"),
        (b'{"eventType":{"provider":"a/b","name":"n"}}', "provider"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":[]}', "properties"),
        (b'{"eventType":{"provider":"p","name":"n"},"timestamp":5}', "timestamp"),
        (b'{"eventType":{"provider":"p","name":"n"},"timestamp":"yesterday"}', "timestamp"),
        (b'{"eventType":{"provider":"p","name":"n"},"timestamp":"1969-12-31T23:59:59Z"}', "1970"),
        (b'{"eventType":{"provider":"p","name":"n"},"uniqueKey":""}', "uniqueKey"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":"\\ud800"}}', "surrogate"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":NaN}}', "JSON"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":"\xff"}}', "UTF-8"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":' + b"[" * 200 + b"]" * 200 + b"}}", "deep"),
        (b'{"eventType":{"provider":"p","name":"n"},"properties":' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "deep"),
    ],
)
async def test_a_bad_body_is_400_and_says_what_is_wrong(ingesting: Ingesting, body: bytes, says: str) -> None:
    answer = await ingesting.post(PUBLISH, body)
    assert answer.status == 400
    assert says in answer.json["message"]
    assert answer.json["code"] == "VALIDATION_ERROR"
    assert ingesting.log.all() == []
    assert (ingesting.bodies.held, ingesting.door.inside) == (0, 0)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer ", "Bearer wrong", "Basic dXNlcjpwdw==", KEY, "Bearer " + "x" * 100_000]
)
async def test_without_a_valid_key_it_is_401(ingesting: Ingesting, authorization: str) -> None:
    answer = await ingesting.post(PUBLISH, post_body(), authorization=authorization)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "key" in answer.json["message"]
    assert authorization.removeprefix("Bearer ") == "" or authorization not in answer.json["message"]


async def test_no_authorization_at_all_is_401(ingesting: Ingesting) -> None:
    answer = await ingesting.post(PUBLISH, post_body(), key=None)
    assert answer.status == 401
    assert "Authorization: Bearer" in answer.json["message"]


async def test_revoked_and_expired_keys_are_401(ingesting: Ingesting) -> None:
    ingesting.keys.apply("acc_1", "key_1", key_control(expires_at=NOW_MS + 1_000))
    assert (await ingesting.post(PUBLISH, post_body())).status == 202
    ingesting.clock.advance(1.0)
    assert (await ingesting.post(PUBLISH, post_body())).status == 401
    ingesting.keys.apply("acc_1", "key_1", key_control())
    assert (await ingesting.post(PUBLISH, post_body())).status == 202
    ingesting.keys.apply("acc_1", "key_1", None)
    assert (await ingesting.post(PUBLISH, post_body())).status == 401


async def test_a_key_without_the_scope_is_403(ingesting: Ingesting) -> None:
    ingesting.keys.apply("acc_1", "key_1", key_control(scopes=("read:events",)))
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 403
    assert "publish:events" in answer.json["message"]


async def test_a_closed_account_is_403(ingesting: Ingesting) -> None:
    ingesting.accounts.apply("acc_1", "acc_1", messages.encode(messages.AccountControl(enabled=False)))
    assert (await ingesting.post(PUBLISH, post_body())).status == 403


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_other_methods_are_405(ingesting: Ingesting, method: str) -> None:
    answer = await asgi.ask(ingesting.app, method, PUBLISH)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/ingest/event", "/ingest/event/publish/", "/", "/ingest/event/publish/batch/x"])
async def test_other_paths_are_404_with_a_message(ingesting: Ingesting, path: str) -> None:
    answer = await ingesting.post(path, post_body())
    assert answer.status == 404
    assert path in answer.json["message"]
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_body_over_the_limit_is_413(ingesting: Ingesting) -> None:
    frame = len(b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":""}}')

    def sized(size: int) -> bytes:
        filler = b"x" * (size - frame)
        return b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":"' + filler + b'"}}'

    assert (await ingesting.post(PUBLISH, sized(limits.BODY_BYTES_MAX))).status == 202
    answer = await ingesting.post(PUBLISH, sized(limits.BODY_BYTES_MAX + 1))
    assert answer.status == 413
    assert str(limits.BODY_BYTES_MAX) in answer.json["message"]
    streamed = await asgi.ask(
        ingesting.app,
        "POST",
        PUBLISH,
        headers={"authorization": f"Bearer {KEY}"},
        body=[b"x" * 600_000, b"y" * 600_000, b"z"],
    )
    assert streamed.status == 413
    assert ingesting.bodies.held == 0


async def test_a_body_may_come_in_chunks(ingesting: Ingesting) -> None:
    body = b'{"eventType":{"provider":"p","name":"n"}}'
    chunks = [body[:5], body[5:20], b"", body[20:]]
    answer = await asgi.ask(ingesting.app, "POST", PUBLISH, headers={"authorization": f"Bearer {KEY}"}, body=chunks)
    assert answer.status == 202


async def test_a_client_that_leaves_gets_no_event(ingesting: Ingesting) -> None:
    with pytest.raises(asgi.NoAnswer):
        await asgi.ask(
            ingesting.app, "POST", PUBLISH, headers={"authorization": f"Bearer {KEY}"}, body=[b"{"], leaves=True
        )
    assert ingesting.log.all() == []
    assert ingesting.bodies.held == 0
    assert ingesting.told.statuses == [499]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/json; charset=utf-8"}, 202),
        ({"content_type": "application/vnd.shop+json"}, 202),
        ({"content_type": "text/plain;charset=UTF-8"}, 202),
        ({"content_type": ""}, 202),
        ({"content_type": "application/json; charset=utf-16"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "application/xml"}, 415),
        ({"content_type": "application/x-ndjson"}, 415),
        ({"content_encoding": "gzip"}, 415),
    ],
)
async def test_content_types(ingesting: Ingesting, headers: dict[str, str], status: int) -> None:
    assert (await ingesting.post(PUBLISH, post_body(), **headers)).status == status


async def test_over_the_rate_is_429_with_its_headers(ingesting: Ingesting) -> None:
    ingesting.keys.apply("acc_1", "key_1", key_control(plan="free"))
    answers = [await ingesting.post(PUBLISH, post_body()) for _ in range(61)]
    assert [a.status for a in answers] == [202] * 60 + [429]
    assert answers[0].headers["x-ratelimit-limit"] == "60"
    assert answers[0].headers["x-ratelimit-remaining"] == "59"
    assert answers[-1].headers["x-ratelimit-remaining"] == "0"
    assert answers[-1].headers["retry-after"] == "1"
    assert ingesting.told.limited == ["acc_1"]
    ingesting.clock.advance(1.0)
    assert (await ingesting.post(PUBLISH, post_body())).status == 202


async def test_a_log_that_is_away_is_503_and_takes_nothing(ingesting: Ingesting) -> None:
    ingesting.log.go_away()
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "nothing was taken" in answer.json["message"]
    ingesting.log.come_back()
    assert (await ingesting.post(PUBLISH, post_body())).status == 202


async def test_a_time_out_says_to_repeat_with_the_same_unique_key(ingesting: Ingesting) -> None:
    ingesting.log.hold()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ingesting.post(PUBLISH, post_body()))
        await eventually(lambda: ingesting.log.in_flight == 1)
        ingesting.log.go_away("the broker did not ack in time")
    answer = asked.result()
    assert answer.status == 503
    assert "uniqueKey" in answer.json["message"]
    assert answer.headers["retry-after"] == "1"
    assert ingesting.told.counts == {"uncertain": 1}


async def test_keys_that_may_be_out_of_date_are_503(ingesting: Ingesting) -> None:
    ingesting.view.age_s = limits.CONTROL_LAG_S_MAX + 0.1
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    ingesting.view.age_s = float("inf")
    assert (await ingesting.post(PUBLISH, post_body())).status == 503
    ingesting.view.age_s = 0.5
    assert (await ingesting.post(PUBLISH, post_body())).status == 202


async def test_in_flight_is_bounded(ingesting: Ingesting) -> None:
    ingesting.door.inside = limits.GATEWAY_IN_FLIGHT_MAX
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 503
    assert answer.json["code"] == "OVERLOADED"


async def test_held_bytes_are_bounded() -> None:
    ingesting = Ingesting(bytes_max=200)
    ingesting.log.hold()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ingesting.post(PUBLISH, post_body()))
        await eventually(lambda: ingesting.log.in_flight == 1)
        assert (await ingesting.post(PUBLISH, post_body())).status == 503
        ingesting.log.release()
    assert first.result().status == 202
    assert ingesting.bodies.held == 0


async def test_request_ids_go_in_and_out(ingesting: Ingesting) -> None:
    assert (await ingesting.post(PUBLISH, post_body(), x_request_id="mine-1")).headers["x-request-id"] == "mine-1"
    odd = await ingesting.post(PUBLISH, b"{", x_request_id="a b\tc")
    assert odd.headers["x-request-id"].startswith("req_")
    assert odd.json["requestId"] == odd.headers["x-request-id"]


async def test_a_sane_traceparent_goes_on_the_log(ingesting: Ingesting) -> None:
    sane = f"00-{'a' * 32}-{'b' * 16}-01"
    await ingesting.post(PUBLISH, post_body(), traceparent=sane)
    await ingesting.post(PUBLISH, post_body(), traceparent="nonsense")
    first, second = ingesting.log.all()
    assert dict(first.headers)[record.TRACEPARENT] == sane.encode()
    assert record.TRACEPARENT not in dict(second.headers)


async def test_a_bug_is_500_without_its_text(ingesting: Ingesting) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("the secret inside")

    ingesting.log.submit = broken  # type: ignore[method-assign, assignment]
    answer = await ingesting.post(PUBLISH, post_body())
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    assert [str(bug) for bug in ingesting.told.bugs] == ["the secret inside"]


async def test_the_routes_are_described(ingesting: Ingesting) -> None:
    for path in ("/openapi.json", "/ingest/openapi.json"):
        answer = await asgi.ask(ingesting.app, "GET", path)
        assert answer.status == 200
        assert {PUBLISH, f"{PUBLISH}/batch"} <= set(answer.json["paths"])


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("POST", PUBLISH, None, 401),
        ("POST", PUBLISH, "mr_live_unknown", 401),
        ("GET", PUBLISH, KEY, 405),
        ("GET", "/nothing", KEY, 404),
        ("GET", "/openapi.json", None, 200),
        ("POST", PUBLISH, KEY, 400),
    ],
)
async def test_every_answer_carries_a_rate(
    ingesting: Ingesting, method: str, path: str, key: str | None, status: int
) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await asgi.ask(ingesting.app, method, path, headers=headers, body=b"{}")
    assert answer.status == status
    for name in ("limit", "remaining", "reset"):
        assert int(answer.headers[f"x-ratelimit-{name}"]) > 0
