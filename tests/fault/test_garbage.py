"""Bad input takes no service down: every topic gets records that cannot be parsed, and the flow goes on behind them.

What cannot be handled is found in the dead letters with its reason; afterwards a good event still becomes a webhook
and a run, so no partition stopped.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from millrace_core import ids, keyring
from millrace_kafka.client import Cluster
from millrace_kafka.topics import CATALOGUE, Cleanup, Topic, Writer, short_name
from tests.fault import scenario
from tests.fault.test_kill import MORTAL, Sink, listening, post_all
from tests.support.platform import Platform
from tests.support.waiting import eventually

GARBAGE: Sequence[tuple[bytes | None, bytes | None]] = (
    (b"k", b""),
    (b"k", b"not json"),
    (b"k", b"{}"),
    (b"k", b"[1,2,3]"),
    (b"k", b'{"id":"\xff\xfe"}'),
    (None, b'{"command":"start","run":7}'),
    (b"k", None),
    (b"k", b"[" * 5_000),
    (b"k", b'{"fact":"unheard.of","run":"exec_x","account":"acc"}'),
    (b"kind/account", b'{"account":"acc","pattern":42}'),
)
PARKING = ("dead-letters", "dead-letters-tx")
UNREAD = {
    *PARKING,
    # Nobody reads these yet; a changelog is read by its writer alone, which takes garbage for nothing.
    *(
        "run-output",
        "meters",
        "matcher-changelog",
        "orchestrator-changelog",
        "admissions-changelog",
        "scheduler-changelog",
        "meter-changelog",
    ),
}
Place = tuple[str, int, int]
"""Topic, partition, offset."""


async def spoil(cluster: Cluster) -> set[Place]:
    """Garbage to every partition of every topic, with and without headers, by the kind of writer the topic has; where
    it stands now."""
    plain = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
    tx = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.namespace}-garbage")
    places: set[Place] = set()
    await plain.start()
    await tx.start()
    try:
        for topic in CATALOGUE.values():
            full = cluster.topic(topic.name)
            if topic.writer is Writer.TRANSACTIONAL:
                async with tx.transaction():
                    places |= await _send(tx, topic, full)
            else:
                places |= await _send(plain, topic, full)
    finally:
        await tx.stop()
        await plain.stop()
    return places


async def _send(producer: AIOKafkaProducer, topic: Topic, full: str) -> set[Place]:
    headers = [("account", b"acc_nobody"), ("id", b"\xff"), ("source", b"::"), ("control", b"x"), ("p", b"-1")]
    # A header without a value is no header of ours, but a header.
    unsaid: list[tuple[str, bytes | None]] = [
        (name, None) for name in ("account", "id", "source", "control", "traceparent", "p", "version")
    ]
    unsaid.append(("kind", b"subscription") if topic.name == "control" else ("kind", None))
    sent = [
        await producer.send(full, value, key=key, partition=partition, headers=given)
        for partition in await producer.partitions_for(full)
        for key, value in GARBAGE
        # A compacted topic's broker refuses a record without a key.
        if key is not None or topic.cleanup is Cleanup.DELETE
        for given in ([], headers, unsaid)
    ]
    written = [await future for future in sent]
    return {(topic.name, each.partition, each.offset) for each in written}


async def parked(cluster: Cluster) -> list[dict[str, bytes]]:
    """The headers of every dead letter there is now."""
    found: list[dict[str, bytes]] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, isolation_level="read_committed")
    await consumer.start()
    try:
        for name in PARKING:
            topic = cluster.topic(name)
            for partition in consumer.partitions_for_topic(topic) or await _partitions(consumer, topic):
                tp = TopicPartition(topic, partition)
                consumer.assign([tp])
                await consumer.seek_to_beginning(tp)
                while batch := await consumer.getmany(timeout_ms=500):
                    found += [dict(record.headers) for records in batch.values() for record in records]
    finally:
        await consumer.stop()
    return found


def _origin(letter: Mapping[str, bytes]) -> Place:
    return short_name(letter["dead-topic"].decode()), int(letter["dead-partition"]), int(letter["dead-offset"])


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.set_topics([topic])
    return set(consumer.partitions_for_topic(topic) or ())


async def test_garbage_on_every_topic_is_parked_and_the_flow_goes_on(
    tmp_path: Path, kafka: str, cluster: Cluster, database: str
) -> None:
    sink = Sink(0)
    async with listening(sink.routes) as sink_url:
        platform = Platform(kafka, database, cluster.namespace, tmp_path / "millrace")
        with platform.stopping():
            made = scenario.world(sink_url, pepper=platform.pepper, ring=keyring.KeyRing.parse(platform.key_ring))
            sink.secret = made.secret
            await asyncio.to_thread(platform.prepare, partitions=2)
            garbage = await spoil(cluster)
            await scenario.publish(cluster, made)
            for name in (*MORTAL, "meter", "api"):
                platform.start(name)
            await platform.ready(timeout_s=90)
            garbage |= await spoil(cluster)
            posted = scenario.events(7, 40)
            accepted = await post_all(platform.url("gateway") + "/ingest/event/publish", made.key, posted)
            expected = sum(len(made.expected(event)) for event in posted)
            db = await asyncpg.connect(database)
            try:

                async def all_came() -> bool:
                    runs = await db.fetchval("select count(*) from read.runs where status = 'completed'")
                    sent = await db.fetchval("select count(*) from read.deliveries where status = 'succeeded'")
                    assert runs + sent == expected, f"{runs} runs and {sent} deliveries of {expected}"
                    return True

                await eventually(all_came, timeout_s=60)
                rows = {
                    row["id"]
                    for row in await db.fetch("select id from read.events where account = $1", scenario.ACCOUNT)
                }
                assert rows == {ids.uuid_of(id) for id in accepted.values()}
                assert await db.fetchval("select count(*) from read.dead_letters") > 0
            finally:
                await db.close()
            await platform.ready(timeout_s=10)
            wanted = {place for place in garbage if place[0] not in UNREAD}
            found: set[Place] = set()

            async def all_parked() -> bool:
                letters = [letter for letter in await parked(cluster) if "dead-topic" in letter]
                assert all(letter.get("dead-reason") for letter in letters)
                found.update(_origin(letter) for letter in letters)
                missing = Counter(topic for topic, _, _ in wanted - found)
                assert not missing, (missing, sorted(wanted - found)[:9])
                return True

            await eventually(all_parked, timeout_s=30, every_s=0.5)
            print(f"\n{len(garbage)} damaged records, {len(wanted)} of them on topics that are read: all parked")
            verified = await asyncio.to_thread(platform.tool, "verify")
            assert "unaccounted 0" in verified.stdout, verified.stdout


@pytest.mark.parametrize("value", [value for _, value in GARBAGE if value is not None])
def test_garbage_is_no_control_record_either(value: bytes) -> None:
    """The followers of `control` take a damaged value for a deleted one instead of raising."""
    from millrace_core.matching import SubscriptionIndex

    index = SubscriptionIndex()
    index.apply("acc", "sub_" + "0" * 32, value)
    assert len(index) == 0
