"""The projector in trouble, on a real broker and a real Postgres: it waits, goes on, and loses nothing."""

from urllib.parse import urlsplit, urlunsplit

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.observer import Silent
from millrace_kafka.topics import partition_of
from millrace_projector.handlers import TOPICS
from millrace_store.migrations import migrate
from millrace_store.pool import Connection
from millrace_store.projection import Projection, Write
from tests.support import projecting, story
from tests.support.projecting import projector, until_projected
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually


async def prepared(cluster: Cluster, database: str) -> story.Teller:
    await create_topics(cluster)
    await migrate(database)
    return story.Teller()


async def test_values_that_postgres_refuses_are_kept_as_bytes(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    odd = [rb'{"a":"\u0000"}', b'{"a":1e999999}', b'{"a":"\xff"}', b'{"a":"' + b"x" * 50_000 + b'"}']
    await story.append(cluster, [teller.event(n, properties) for n, properties in enumerate(odd)])
    async with projector(cluster, database):
        await until_projected(cluster, database)
    connection = await asyncpg.connect(database)
    rows = await connection.fetch(
        "SELECT properties, properties_json::text AS copy, json_refused FROM read.events ORDER BY id"
    )
    await connection.close()
    assert [row["properties"] for row in rows] == odd
    assert [row["json_refused"] for row in rows] == [None, "a number is out of range", "it is not UTF-8", None]
    assert rows[0]["copy"] == '{"a": ""}'


async def test_garbage_on_every_topic_is_parked_and_the_rest_goes_on(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    garbage = [Output(topic, b"k%d" % n, value) for topic in TOPICS for n, value in enumerate((b"\xff", b"{}", None))]
    await story.append(cluster, [*garbage, *(record for n in range(5) for record in teller.whole(n))])
    async with projector(cluster, database) as running:
        await until_projected(cluster, database)
        await until_projected(cluster, database)
        await eventually(lambda: running.ready() is None)
    tables = await projecting.tables(database)
    assert len(tables["runs"]) == 5
    # What lies on the two topics of dead letters is one already, whatever it is.
    assert len(tables["dead_letters"]) == len(garbage)


class RefusesOneRun(Projection):
    """Postgres as it would be if it refused a value that nobody had thought of."""

    def __init__(self, id: str) -> None:
        super().__init__()
        self._id = id

    async def _write(self, connection: Connection, write: Write, is_careful: bool) -> None:
        if write.table == "runs" and any(row[0] == self._id for row in (*write.fresh, *write.merged)):
            await connection.execute("SELECT 'nonsense'::integer")
        await super()._write(connection, write, is_careful)


async def test_a_batch_that_postgres_refuses_loses_only_the_record_at_fault(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    await story.append(cluster, [teller.start_run(n) for n in range(10)])
    refused = teller.run_id(4).partition("_")[2]
    async with projector(cluster, database, projection=RefusesOneRun(refused)):
        await until_projected(cluster, database)
        await until_projected(cluster, database)
    tables = await projecting.tables(database)
    assert (len(tables["runs"]), len(tables["dead_letters"])) == (9, 1)


async def test_it_waits_for_postgres_and_says_so(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    parts = urlsplit(database)
    async with TcpProxy(parts.port or 5432) as proxy:
        address = f"{parts.username}:{parts.password or ''}@127.0.0.1:{proxy.port}"
        through_proxy = urlunsplit(parts._replace(netloc=address))
        async with projector(cluster, through_proxy) as running:
            await story.append(cluster, teller.whole(0))
            await until_projected(cluster, database)
            await proxy.cut()
            await story.append(cluster, [record for n in range(1, 30) for record in teller.whole(n)])
            await eventually(lambda: "Postgres is away" in (running.ready() or ""))
            proxy.heal()
            await until_projected(cluster, database)
            await eventually(lambda: running.ready() is None)
    assert len((await projecting.tables(database))["deliveries"]) == 30


async def test_it_waits_for_its_tables(cluster: Cluster, database: str) -> None:
    await create_topics(cluster)
    await story.append(cluster, story.Teller().whole(0))
    async with projector(cluster, database) as running:
        await eventually(lambda: "does not exist" in (running.ready() or ""), timeout_s=20.0)
        await migrate(database)
        await until_projected(cluster, database)
        await eventually(lambda: running.ready() is None)


async def test_two_share_the_partitions_and_one_takes_over(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    async with projector(cluster, database, instance="one"):
        async with projector(cluster, database, instance="two"):
            await story.append(cluster, [record for n in range(20) for record in teller.whole(n)])
            await until_projected(cluster, database)
        await story.append(cluster, [record for n in range(20, 40) for record in teller.whole(n)])
        await until_projected(cluster, database)
    tables = await projecting.tables(database)
    assert (len(tables["runs"]), len(tables["step_attempts"]), len(tables["dead_letters"])) == (40, 80, 0)


class Stops(Silent):
    def __init__(self) -> None:
        self.stops: list[tuple[str, int]] = []

    def stopped(self, topic: str, partition: int, reason: str) -> None:
        self.stops.append((topic, partition))


async def test_a_position_outside_the_log_stops_its_partition_alone(cluster: Cluster, database: str) -> None:
    teller = await prepared(cluster, database)
    async with projector(cluster, database):
        await until_projected(cluster, database)
    await story.append(cluster, [record for n in range(12) for record in teller.whole(n)])
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    number = partition_of(teller.event_id(0).encode(), 3)
    lost = TopicPartition(cluster.topic("events"), number)
    await admin.delete_records({lost: RecordsToDelete(before_offset=1)})
    await admin.close()
    observer = Stops()
    async with projector(cluster, database, observer=observer) as running:
        await eventually(lambda: observer.stops, timeout_s=20.0)
        assert "outside the log" in (running.ready() or "")

        async def all_else() -> bool:
            tables = await projecting.tables(database)
            return len(tables["runs"]) == len(tables["deliveries"]) == 12

        await eventually(all_else, timeout_s=20.0)
    assert set(observer.stops) == {("events", number)}


async def test_it_waits_for_its_topics(cluster: Cluster, database: str) -> None:
    await migrate(database)
    async with projector(cluster, database) as running:
        await eventually(lambda: "cannot be found" in (running.ready() or ""), timeout_s=30.0)
        await create_topics(cluster)
        await story.append(cluster, story.Teller().whole(0))
        await until_projected(cluster, database, timeout_s=60.0)
        await eventually(lambda: running.ready() is None)
