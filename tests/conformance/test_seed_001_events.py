"""Seed 001, "Tell OpsIQ what just happened": `POST /v1/events/fire`, on a whole Millrace."""

import orjson
import pytest

from tests.e2e.conftest import Millrace
from tests.support.signing import signed_headers
from tests.support.user import Answer
from tests.support.waiting import eventually

FIRE = "/v1/events/fire"
SHIPPED = orjson.dumps({"event": "order.shipped", "payload": {"customer_id": 421, "order_ref": "NB-9182"}})


async def fire(millrace: Millrace, body: bytes, **headers: str) -> Answer:
    return await millrace.user.send("POST", millrace.user.gateway + FIRE, body, **headers)


async def test_a_fired_event_is_heard_as_one_of_the_provider_ops(millrace: Millrace) -> None:
    answer = await fire(millrace, SHIPPED)
    assert (answer.status, answer.json["event"], set(answer.json)) == (
        202,
        "order.shipped",
        {"id", "event", "received_at"},
    )
    event = await millrace.user.decided(answer.json["id"])
    assert (event["identifier"], event["properties"]["order_ref"]) == ("e:ops/order.shipped", "NB-9182")


@pytest.mark.parametrize(
    "name", ["invoice.paid", "ticket.created", "subscription.cancelled", "customer.signed_up", "own"]
)
async def test_the_pages_names_and_own_ones_are_taken(millrace: Millrace, name: str) -> None:
    answer = await fire(millrace, orjson.dumps({"event": name, "payload": {}}))
    assert (answer.status, answer.json["event"]) == (202, name)


async def test_a_signed_caller_fires_and_a_repeat_is_the_same_event(millrace: Millrace) -> None:
    wanted = {"name": "ops", "surface": "ops", "scopes": ["publish:events"]}
    key = await millrace.user.make("/v1/keys", wanted)
    headers = {"content-type": "application/json", **signed_headers(key["key"], key["secret"], "POST", FIRE, SHIPPED)}

    async def fired() -> str:
        async with millrace.user.session.post(millrace.user.gateway + FIRE, data=SHIPPED, headers=headers) as answer:
            assert answer.status == 202, await answer.read()
            return str((await answer.json())["id"])

    first = await eventually(fired, what="the gateway knows the key")
    assert await fired() == first


async def test_it_is_idempotent(millrace: Millrace) -> None:
    ids = {(await fire(millrace, SHIPPED, idempotency_key="fire-1")).json["id"] for _ in range(3)}
    assert len(ids) == 1
