"""POST /ingest/event/publish/batch: each item on its own, the whole only when it cannot be read or is too much."""

import asyncio

import orjson
import pytest

from millrace_core import limits
from tests.support.ingesting import BATCH, PUBLISH, Ingesting, post_body
from tests.support.waiting import eventually


@pytest.fixture
def ingesting() -> Ingesting:
    return Ingesting()


async def test_each_item_is_accepted_or_refused_on_its_own(ingesting: Ingesting) -> None:
    answer = await ingesting.post(BATCH, [post_body(), {"eventType": 1}, "no event", post_body(uniqueKey="u")])
    assert answer.status == 200
    body = answer.json
    assert (body["success"], body["accepted"], body["refused"]) == (True, 2, 2)
    assert [result["index"] for result in body["results"]] == [0, 1, 2, 3]
    assert [("eventId" in r, "message" in r) for r in body["results"]] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]
    assert len(ingesting.log.all()) == 2
    assert ingesting.told.counts == {"accepted": 2, "refused": 2}


async def test_ndjson_takes_what_can_be_read(ingesting: Ingesting) -> None:
    good = orjson.dumps(post_body())
    lines = b"\n".join([good, b"", b"{broken", b"  " + good + b"\r", b""])
    answer = await ingesting.post(BATCH, lines, content_type="application/x-ndjson")
    assert answer.status == 200
    assert answer.json["accepted"] == 2
    assert [r["index"] for r in answer.json["results"]] == [0, 1, 2]
    assert "JSON" in answer.json["results"][1]["message"]


async def test_an_array_whose_item_is_not_utf8_refuses_that_item(ingesting: Ingesting) -> None:
    good = orjson.dumps(post_body())
    bad = b'{"eventType":{"provider":"p","name":"n"},"properties":{"a":"\xff"}}'
    answer = await ingesting.post(BATCH, b"[" + good + b"," + bad + b"]")
    assert answer.status == 200
    assert answer.json["accepted"] == 1


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[1,", b"7", b"[" * 100_000])
async def test_an_unreadable_whole_is_400(ingesting: Ingesting, body: bytes) -> None:
    answer = await ingesting.post(BATCH, body)
    assert answer.status == 400
    assert answer.json["message"]
    assert ingesting.bodies.held == 0


async def test_an_empty_batch_is_a_batch(ingesting: Ingesting) -> None:
    answer = await ingesting.post(BATCH, [])
    assert answer.status == 200
    assert answer.json == {"success": True, "accepted": 0, "refused": 0, "results": []}


async def test_a_thousand_items_are_taken_and_no_more(ingesting: Ingesting) -> None:
    item = {"eventType": {"provider": "p", "name": "n"}}
    assert (await ingesting.post(BATCH, [item] * limits.BATCH_ITEMS_MAX)).json["accepted"] == limits.BATCH_ITEMS_MAX
    for body, kind in (
        (orjson.dumps([item] * 1_001), "application/json"),
        (b"\n".join([orjson.dumps(item)] * 1_001), "application/x-ndjson"),
    ):
        answer = await ingesting.post(BATCH, body, content_type=kind)
        assert answer.status == 413
        assert "1000" in answer.json["message"]


async def test_the_body_is_bounded_and_so_is_each_item(ingesting: Ingesting) -> None:
    assert (await ingesting.post(BATCH, b" " * (limits.BATCH_BODY_BYTES_MAX + 1))).status == 413
    large = post_body(properties={"a": "x" * limits.BODY_BYTES_MAX})
    answer = await ingesting.post(BATCH, [large, post_body()])
    assert answer.status == 200
    assert answer.json["refused"] == 1


async def test_an_idempotency_key_makes_a_repeated_batch_the_same_events(ingesting: Ingesting) -> None:
    items = [post_body(), post_body()]
    first = (await ingesting.post(BATCH, items, idempotency_key="i")).json["results"]
    again = (await ingesting.post(BATCH, items, idempotency_key="i")).json["results"]
    assert first == again
    assert first[0]["eventId"] != first[1]["eventId"]


async def test_what_is_not_confirmed_is_503(ingesting: Ingesting) -> None:
    ingesting.log.hold()
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ingesting.post(BATCH, [post_body()] * 3))
        await eventually(lambda: ingesting.log.in_flight == 3)
        ingesting.log.go_away()
    assert asked.result().status == 503
    assert "uniqueKey" in asked.result().json["message"]


async def test_batches_that_come_together_cannot_pass_the_bound_together(ingesting: Ingesting) -> None:
    ingesting.log.hold()
    batch = [post_body()] * limits.BATCH_ITEMS_MAX
    fits = limits.GATEWAY_IN_FLIGHT_MAX // (limits.BATCH_ITEMS_MAX + 1)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ingesting.post(BATCH, batch)) for _ in range(fits + 2)]
        await eventually(lambda: ingesting.log.in_flight == fits * limits.BATCH_ITEMS_MAX)
        ingesting.log.release()
    assert sorted(task.result().status for task in asked) == [200] * fits + [503] * 2
    assert len(ingesting.log.all()) == fits * limits.BATCH_ITEMS_MAX, "a refused batch takes nothing"
    assert (ingesting.bodies.held, ingesting.door.inside) == (0, 0)


async def test_a_batch_counts_as_one_request(ingesting: Ingesting) -> None:
    answer = await ingesting.post(BATCH, [post_body()] * 10)
    limit, remaining = (int(answer.headers[f"x-ratelimit-{n}"]) for n in ("limit", "remaining"))
    assert limit - remaining == 1


@pytest.mark.parametrize("kind", ["application/xml", "application/cloudevents+json"])
async def test_other_content_types_are_415(ingesting: Ingesting, kind: str) -> None:
    answer = await ingesting.post(BATCH, b"[]", content_type=kind)
    assert answer.status == 415
    assert PUBLISH in answer.json["message"] or "application/json" in answer.json["message"]


async def test_the_position_names_the_furthest_record_of_each_partition(ingesting: Ingesting) -> None:
    answer = await ingesting.post(BATCH, [post_body()] * 3)
    assert answer.headers["x-millrace-position"].endswith(":2")
