"""The matcher as a process, on a real broker: each event decided once, changes in force at once; killed, it goes on."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from millrace_core import record
from millrace_core.clock import SystemClock
from millrace_core.event import make_event, parse_post, to_output
from millrace_core.messages import EndpointControl, EventFact, SubscriptionControl, decode, encode
from millrace_core.record import Output, header
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.support.waiting import eventually

ACCOUNT = "acc_1"
ENDPOINT, SUB = (f"{prefix}_{1:032x}" for prefix in ("we", "sub"))


@asynccontextmanager
async def matcher(cluster: Cluster, instance: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A matcher process; ended by SIGTERM, unless the test killed it."""
    env = {"MILLRACE_KAFKA": cluster.bootstrap, "MILLRACE_NAMESPACE": cluster.namespace, "MILLRACE_INSTANCE": instance}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "millrace_matcher", env=os.environ | env, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) in (0, -signal.SIGKILL)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def event(n: int, clock: SystemClock, **members: object) -> Output:
    body = {"eventType": {"provider": "custom", "name": "x"}, "properties": {"n": n}, "orderingKey": str(n % 7)}
    posted = parse_post(orjson.dumps(body | members), now_ms=clock.now_ms())
    return to_output(make_event(posted, account=ACCOUNT, now_ms=clock.now_ms()))


async def facts(cluster: Cluster) -> list[EventFact]:
    return [decode(one.value, EventFact) for one in await read_all(cluster, ["event-facts"])]


async def test_events_are_matched_and_a_killed_matcher_goes_on(cluster: Cluster) -> None:
    clock = SystemClock()
    await create_topics(cluster, partitions=3, replication=1)
    control, producer = ControlWriter(cluster), PlainProducer(cluster)
    await control.start()
    await producer.start()
    endpoint = EndpointControl(account=ACCOUNT, url="https://a.example", secrets=("s",))
    subscription = SubscriptionControl(
        account=ACCOUNT, pattern="e:custom/*", target_kind="endpoint", target_id=ENDPOINT, created_at=clock.now_ms()
    )
    await control.write([("endpoint", ACCOUNT, ENDPOINT, 1, encode(endpoint))])

    async def decided(count: int) -> list[EventFact]:
        found = {fact.event: fact for fact in await facts(cluster)}
        assert len(found) == count, len(found)
        return list(found.values())

    try:
        async with matcher(cluster, "one") as process:
            await producer.write([event(n, clock) for n in range(20)])
            early = await eventually(lambda: decided(20), timeout_s=60, every_s=0.3)
            assert {fact.outcome for fact in early} == {"unmatched"}

            await control.write([("subscription", ACCOUNT, SUB, 1, encode(subscription))])
            await producer.write([event(n, clock) for n in range(20, 400)])
            found = await eventually(lambda: decided(400), timeout_s=60, every_s=0.3)
            assert sum(fact.outcome == "matched" for fact in found) == 380, "in force for every event after the change"

            keyed = [event(n, clock, uniqueKey=f"k{n}") for n in range(400, 700)]
            await producer.write([*keyed, *keyed])
            await producer.write([Output("events", b"x", b"garbage", ((record.ACCOUNT, ACCOUNT.encode()),))])
            process.kill()
            await process.wait()
        async with matcher(cluster, "one"):
            await eventually(lambda: decided(700), timeout_s=60, every_s=0.3)
            await control.write([("subscription", ACCOUNT, SUB, 2, None)])
            await producer.write([event(n, clock) for n in range(700, 720)])
            await eventually(lambda: decided(720), timeout_s=60, every_s=0.3)
    finally:
        await producer.stop()
        await control.stop()

    last: dict[tuple[str, bytes | None], str] = {}
    for one in await read_all(cluster, ["event-facts"]):
        fact = decode(one.value, EventFact)
        last.setdefault((fact.event, header(one, record.SOURCE)), fact.outcome)
    outcomes = list(last.values())
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == {
        "unmatched": 40,
        "matched": 680,
        "duplicate": 300,
    }
    deliveries = await read_all(cluster, ["deliveries"])
    assert len({header(one, record.ID) for one in deliveries}) == 680
    assert [letter.value for letter in await read_all(cluster, ["dead-letters"])][:1] == [b"garbage"]
