"""Rebuilding on a real broker and a real Postgres: the log gives the same tables again."""

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from millrace_core.errors import Fatal
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_projector.rebuilding import Rebuilt, rebuild
from millrace_store import shadow
from millrace_store.migrations import migrate
from tests.support import projecting, story
from tests.support.infra import execute
from tests.support.projecting import projector, until_projected
from tests.support.waiting import eventually


async def told(cluster: Cluster, database: str, events: int = 30) -> story.Teller:
    """A log with a story of so many events, one bad record among them, projected."""
    teller = story.Teller()
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, [record for n in range(events) for record in teller.whole(n)])
    await story.append(cluster, [Output("run-facts", b"x", b"garbage")])
    async with projector(cluster, database):
        await until_projected(cluster, database)
        await until_projected(cluster, database)  # the dead letter came while the first ends were being passed
    return teller


async def rebuilt(cluster: Cluster, database: str, *, drop: bool = False) -> Rebuilt:
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        return await rebuild(cluster, database, letters=producer, drop=drop)
    finally:
        await producer.stop()


@pytest.mark.parametrize("drop", [False, True], ids=["keeping what is older", "from the log alone"])
async def test_a_rebuild_gives_equal_tables(cluster: Cluster, database: str, drop: bool) -> None:
    await told(cluster, database)
    before = await projecting.tables(database)
    await execute(database, "UPDATE read.runs SET status = 'nonsense'; DELETE FROM read.deliveries")
    await rebuilt(cluster, database, drop=drop)
    assert await projecting.tables(database) == before
    assert len(before["dead_letters"]) == 1


async def test_a_dropped_schema_comes_back(cluster: Cluster, database: str) -> None:
    await told(cluster, database)
    before = await projecting.tables(database)
    await execute(database, "DROP SCHEMA read CASCADE")
    await rebuilt(cluster, database)
    assert await projecting.tables(database) == before
    async with projector(cluster, database) as running:
        await until_projected(cluster, database)
        await eventually(lambda: running.ready() is None)


async def test_the_live_projector_goes_on_in_the_new_schema(cluster: Cluster, database: str) -> None:
    teller = await told(cluster, database)
    async with projector(cluster, database) as running:
        await story.append(cluster, [record for n in range(30, 40) for record in teller.whole(n)])
        await rebuilt(cluster, database)
        await story.append(cluster, [record for n in range(40, 50) for record in teller.whole(n)])
        await until_projected(cluster, database)
        await eventually(lambda: running.ready() is None)
    tables = await projecting.tables(database)
    assert (len(tables["events"]), len(tables["runs"]), len(tables["dead_letters"])) == (50, 50, 1)
    assert {row[2] for row in tables["runs"]} == {"completed"}


async def test_rows_older_than_the_log_are_kept(cluster: Cluster, database: str) -> None:
    await told(cluster, database)
    before = await projecting.tables(database)
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        topics = ("events", "run-commands", "event-facts")
        parts = [TopicPartition(cluster.topic(topic), partition) for topic in topics for partition in range(3)]
        await admin.delete_records({part: RecordsToDelete(before_offset=5) for part in parts})
    finally:
        await admin.close()
    done = await rebuilt(cluster, database)
    assert await projecting.tables(database) == before
    assert done.kept["events"] == 30


async def test_two_rebuilds_at_once_are_refused(cluster: Cluster, database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    await shadow.lock(connection)
    with pytest.raises(Fatal, match="another rebuild"):
        await rebuilt(cluster, database)
    await connection.close()
