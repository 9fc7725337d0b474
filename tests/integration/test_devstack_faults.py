"""The local servers when things go wrong: crashes, a killed owner, taken ports, damaged data, a network cut."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from millrace_devstack import ports, probes
from millrace_devstack.errors import StackError
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.postgres import Postgres
from tests.support.processes import has_ended
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

TOPIC = "kept"


async def _produce(bootstrap: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(TOPIC, value)
    finally:
        await producer.stop()


async def _first_value(bootstrap: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none")
    await consumer.start()
    try:
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        async with asyncio.timeout(20):
            value: bytes | None = (await consumer.getone()).value
        return value
    finally:
        await consumer.stop()


async def _make_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kafka]:
    """A broker that these tests may hurt, with a second listener for clients that come through a proxy."""
    proxied = Proxied(port=ports.free_port(), advertised_port=ports.free_port())
    async with Kafka(tmp_path_factory.mktemp("broker"), proxied=proxied) as kafka:
        await _make_topic(kafka.bootstrap)
        await _produce(kafka.bootstrap, b"acknowledged")
        yield kafka


async def test_kafka_keeps_what_it_acknowledged_over_a_sigkill(broker: Kafka) -> None:
    before = (broker.bootstrap, broker.pid)
    await broker.restart(kill=True)
    assert broker.bootstrap == before[0]
    assert broker.pid != before[1]
    assert await _first_value(broker.bootstrap) == b"acknowledged"


async def test_postgres_keeps_what_it_committed_over_a_sigkill(tmp_path: Path) -> None:
    async with Postgres(tmp_path) as postgres:
        dsn = await postgres.ensure_database("kept")
        assert await postgres.ensure_database("kept") == dsn
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
        connection.terminate()
        await postgres.restart(kill=True)
        connection = await asyncpg.connect(dsn)
        try:
            assert await connection.fetchval("SELECT answer FROM t") == 42
        finally:
            await connection.close()
    assert postgres.pid is None


async def test_servers_die_with_an_owner_that_is_killed_and_start_again_on_the_same_data(tmp_path: Path) -> None:
    async def owner() -> tuple[asyncio.subprocess.Process, dict[str, int]]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.server_owner", str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(120):
            return process, json.loads(await process.stdout.readline())

    first, told = await owner()
    first.kill()
    await first.communicate()
    # At once, while the old servers may still be dying.
    second, told_again = await owner()
    assert has_ended(told["kafka"])
    assert has_ended(told["postgres"])
    second.kill()
    await second.communicate()
    await eventually(lambda: has_ended(told_again["kafka"]) and has_ended(told_again["postgres"]))


async def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in (Kafka(tmp_path / "kafka", port=port), Postgres(tmp_path / "postgres", port=port)):
            with pytest.raises(StackError, match=rf"port {port}, .* taken by .*\(pid {os.getpid()}\)"):
                await server.start()
            assert server.pid is None


async def test_kafka_on_data_of_a_running_kafka_is_refused(broker: Kafka) -> None:
    with pytest.raises(StackError, match="another Kafka is running on"):
        await Kafka(broker.home, predecessor_timeout_s=0.1).start()
    assert broker.pid is not None


async def test_postgres_on_data_of_a_running_postgres_is_refused(tmp_path: Path) -> None:
    async with Postgres(tmp_path, fsync=False):
        with pytest.raises(StackError, match=r"another Postgres .* is running on"):
            await Postgres(tmp_path, fsync=False, predecessor_timeout_s=0.1).start()


async def test_damaged_data_are_told_with_the_way_out(tmp_path: Path) -> None:
    async with Kafka(tmp_path):
        pass
    properties = tmp_path / "data" / "meta.properties"
    properties.write_text("version=1\nnode.id=7\ncluster.id=another\n")
    kafka = Kafka(tmp_path)
    with pytest.raises(StackError, match="make clean"):
        await kafka.start()
    assert kafka.pid is None


async def test_a_frozen_broker_answers_nothing_until_it_is_thawed(broker: Kafka) -> None:
    broker.freeze()
    asked = asyncio.ensure_future(probes.kafka_answers(broker.port))
    done, _ = await asyncio.wait({asked}, timeout=0.5)
    assert not done
    broker.thaw()
    await asyncio.wait_for(asked, 10)
    await eventually(lambda: probes.kafka_answers(broker.port))


async def test_a_client_behind_a_proxy_is_told_the_proxys_port_and_feels_its_cut(broker: Kafka) -> None:
    assert broker.proxied is not None
    async with TcpProxy(broker.proxied.port, port=broker.proxied.advertised_port) as proxy:
        assert await _first_value(f"127.0.0.1:{proxy.port}") == b"acknowledged"
        await proxy.cut()
        assert not await probes.kafka_answers(proxy.port)
        proxy.heal()
        assert await _first_value(f"127.0.0.1:{proxy.port}") == b"acknowledged"
