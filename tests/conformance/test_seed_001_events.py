"""Seed 001, "Tell OpsIQ what just happened": `POST /v1/events/fire`, on a whole Millrace."""

from typing import Any

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


async def test_a_signed_caller_fires_and_a_copy_of_the_request_is_refused(millrace: Millrace) -> None:
    wanted = {"name": "ops", "surface": "ops", "scopes": ["publish:events"]}
    key = await millrace.user.make("/v1/keys", wanted)
    headers = {"content-type": "application/json", **signed_headers(key["key"], key["secret"], "POST", FIRE, SHIPPED)}

    async def fired(**more: str) -> tuple[int, Any]:
        url = millrace.user.gateway + FIRE
        async with millrace.user.session.post(url, data=SHIPPED, headers={**headers, **more}) as answer:
            return answer.status, await answer.json()

    async def is_taken() -> bool:
        return (await fired())[0] == 202

    await eventually(is_taken, what="the gateway knows the key")
    for more in ({}, {"idempotency-key": "another"}):
        status, body = await fired(**more)
        assert (status, body["error"]["code"]) == (401, "nonce_reused")


async def test_it_is_idempotent(millrace: Millrace) -> None:
    ids = {(await fire(millrace, SHIPPED, idempotency_key="fire-1")).json["id"] for _ in range(3)}
    assert len(ids) == 1
