"""The local servers as the rest of the tests get them. Faults of the stack itself: tests/fault/test_devstack_faults."""

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from millrace_kafka.client import Cluster
from tests.support import infra


async def test_a_topic_of_the_namespace_takes_a_record_and_is_dropped_afterwards(cluster: Cluster) -> None:
    topic = cluster.topic("events")
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        sent = await producer.send_and_wait(topic, b"hello", timestamp_ms=1)
        assert sent.offset == 0
        assert sent.timestamp_type == 1, "the broker's own time is the record's"
        assert sent.timestamp > 1_600_000_000_000
        await infra.drop_topics(cluster)
        assert topic not in await admin.list_topics()
    finally:
        await producer.stop()
        await admin.close()


async def test_a_database_is_fresh_and_speaks_utf8(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert int(await connection.fetchval("SHOW server_version_num")) // 10_000 == 18
    finally:
        await connection.close()
