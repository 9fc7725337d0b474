"""A dead letter sent again on a whole Millrace: what it asked for happens, once, and the account holds."""

import asyncio

import orjson

from millrace_core import ids
from millrace_core.dead_letters import dead_letter
from millrace_core.messages import Delivery, Raw, encode
from millrace_core.record import Written
from millrace_kafka.producer import PlainProducer
from tests.e2e.conftest import Millrace
from tests.support.waiting import eventually


async def test_a_delivery_that_was_parked_is_made_after_all(millrace: Millrace) -> None:
    user, sink, path = millrace.user, millrace.sink, "/redrive/parked"
    account = (await user.get("/v1/accounts/me"))["id"]
    made = await user.make("/v1/webhooks", {"url": sink.url + path})
    sink.secrets[path] = made["secret"]
    id, event = ids.new_id(ids.DELIVERY), ids.new_id(ids.EVENT)
    body = {"id": event, "type": "e:redrive/parked", "timestamp": "2026-01-01T00:00:00.000Z", "data": {}}
    delivery = Delivery(
        id=id, account=account, endpoint=made["id"], event=event, type="e:redrive/parked", body=Raw(orjson.dumps(body))
    )
    headers = (("account", account.encode()), ("id", id.encode()), ("source", b"millrace.events.v1:0:1"))
    record = Written("millrace.deliveries.v1", 0, 0, 0, made["id"].encode(), encode(delivery), headers)
    producer = PlainProducer(millrace.cluster)
    await producer.start()
    (place,) = await producer.write([dead_letter(record, "three times it ended its worker")])
    await producer.stop()
    letter = f"dead-letters:{place.partition}:{place.offset}"
    await eventually(lambda: _is_shown(millrace, letter))
    shown = await user.get(f"/v1/dead-letters/{letter}")
    assert (shown["source"], shown["redriven_at"]) == ("deliveries:0:0", None)
    answers = [await user.ask("POST", f"/v1/dead-letters/{letter}/redrive", idempotency_key="one") for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers] == [(202, answers[0].body)] * 3
    await user.ended(f"/v1/deliveries/{id}", "succeeded")
    await eventually(lambda: sink.events_at(path) == [event])
    assert (await user.get(f"/v1/dead-letters/{letter}"))["redriven_at"] is not None
    said = await asyncio.to_thread(millrace.platform.tool, "verify")
    assert "unaccounted 0" in said.stdout.splitlines()


async def _is_shown(millrace: Millrace, letter: str) -> bool:
    return (await millrace.user.ask("GET", f"/v1/dead-letters/{letter}")).status == 200
