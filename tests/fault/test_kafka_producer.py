"""The producer's rules: what a refused, a lost and a late ack do, and the planted faults that show why.

aiokafka 0.14 assigns sequence numbers when it hands a batch to the network. A refused batch leaves a hole that no later
batch of that producer can pass (aiokafka#1017).
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from millrace_core.errors import Retry
from millrace_core.record import Output
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.ports import free_port
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.support.processing import producing, values
from tests.support.tcp_proxy import TcpProxy
from tests.support.topic_configs import stricter
from tests.support.waiting import eventually

TIMEOUT_S = 1.5


def event(name: bytes, *, partition: int = 0) -> Output:
    return Output("events", b"key", name, partition=partition)


class Keeping(PlainProducer):
    """Planted: the client is kept after a failed send."""

    def _fail(self, reason: str) -> None:
        client = self._client
        super()._fail(reason)
        if not self._stopping:
            self._broken.clear()
            self._client, self._why_away = client, None


@pytest.mark.parametrize("kind", [PlainProducer, Keeping])
async def test_after_a_refused_record_the_client_is_replaced(cluster: Cluster, kind: type[PlainProducer]) -> None:
    await create_topics(cluster, partitions=1)
    async with stricter(cluster, "events", 2_000), producing(cluster, kind) as producer:
        await producer.write([event(b"before")])
        # The broker takes its new setting a moment after it has answered.
        await eventually(lambda: _fails(producer, os.urandom(5_000)))
        if kind is PlainProducer:
            await eventually(lambda: _writes(producer, b"after"))
            found = [value for value in values(await read_all(cluster, ["events"])) if len(value) < 5_000]
            assert found == [b"before", b"after"]
        else:
            assert [await _writes(producer, b"after") for _ in range(5)] == [False] * 5


async def _writes(producer: PlainProducer, name: bytes) -> bool:
    try:
        await producer.write([event(name)])
    except Retry:
        return False
    return True


async def _fails(producer: PlainProducer, name: bytes) -> bool:
    return not await _writes(producer, name)


@dataclass
class Behind:
    """A broker of its own that is reached through a proxy, and the way around it."""

    proxy: TcpProxy
    through: Cluster
    direct: Cluster


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    listener = free_port()
    async with TcpProxy(listener) as proxy:
        kafka = Kafka(tmp_path / "kafka", proxied=Proxied(listener, proxy.port), heap="320m")
        await kafka.start()
        try:
            direct = Cluster(kafka.bootstrap, f"t{secrets.token_hex(4)}")
            await create_topics(direct, partitions=2)
            yield Behind(proxy, Cluster(f"127.0.0.1:{proxy.port}", direct.namespace), direct)
        finally:
            proxy.heal()
            await kafka.kill()


@pytest.mark.parametrize("trouble", ["silent", "cut"])
async def test_nothing_waits_longer_than_the_time_out_and_it_comes_back(behind: Behind, trouble: str) -> None:
    """An idempotent batch of aiokafka never expires while a leader is known: the time-out is ours."""
    loop = asyncio.get_running_loop()
    producer = PlainProducer(behind.through, timeout_s=TIMEOUT_S)
    await producer.start()
    try:
        await producer.write([event(b"0")])
        await asyncio.gather(*[producer.submit(event(b"%d" % n)) for n in range(1, 5)])
        if trouble == "silent":
            behind.proxy.hold()
        else:
            await behind.proxy.cut()
        began = loop.time()
        queued = [producer.submit(event(b"lost %d" % n, partition=n % 2)) for n in range(50)]
        with pytest.raises(Retry, match="the records may be on the log"):
            await producer.write([event(b"lost")])
        assert loop.time() - began < TIMEOUT_S + 1
        outcomes = await asyncio.gather(*queued, return_exceptions=True)
        assert all(isinstance(outcome, Retry) for outcome in outcomes)
        assert producer.in_flight == 0
        assert producer.ready() is not None
        with pytest.raises(Retry):
            producer.submit(event(b"refused while it is away"))
        behind.proxy.heal()
        await eventually(lambda: producer.ready() is None, timeout_s=30)
        await producer.write([event(b"again %d" % n) for n in range(3)])
    finally:
        await producer.stop()
    found = [value for value in values(await read_all(behind.direct, ["events"])) if not value.startswith(b"lost")]
    assert found == [b"0", b"1", b"2", b"3", b"4", b"again 0", b"again 1", b"again 2"]
    assert len(set(values(await read_all(behind.direct, ["events"])))) == len(
        values(await read_all(behind.direct, ["events"]))
    ), "a record that timed out may be there once, never twice"
