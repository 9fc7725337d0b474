"""The gateway's event log, in memory and real: one suite. What unit tests rely on, the real one does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from millrace_core import record
from millrace_core.errors import Retry
from millrace_core.record import Output, Received
from millrace_gateway.ports import EventLog
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from tests.support.memory_log import MemoryLog

PARTITIONS = 4


class Memory:
    """The log in memory, and how to read it."""

    def __init__(self, log: MemoryLog) -> None:
        self.log: EventLog = log
        self._memory = log

    async def ids(self) -> list[tuple[int, str]]:
        return [
            (partition, dict(output.headers)[record.ID].decode())
            for (_, partition), outputs in sorted(self._memory.records.items())
            for output in outputs
        ]

    async def close(self) -> None:
        self._memory.go_away("stopped")


class Real:
    """The plain producer on a broker, and how to read what it wrote."""

    def __init__(self, cluster: Cluster, producer: PlainProducer) -> None:
        self.log: EventLog = producer
        self._cluster = cluster
        self._producer = producer

    async def ids(self) -> list[tuple[int, str]]:
        records: list[Received] = await read_all(self._cluster, ["events"])
        ordered = sorted(records, key=lambda r: (r.partition, r.offset))
        return [(r.partition, dict(r.headers)[record.ID].decode()) for r in ordered]

    async def close(self) -> None:
        await self._producer.stop()


Subject = Memory | Real


@pytest.fixture(params=["memory", "kafka"])
async def subject(request: pytest.FixtureRequest, cluster: Cluster) -> AsyncIterator[Subject]:
    if request.param == "memory":
        yield Memory(MemoryLog(partitions=PARTITIONS))
        return
    await create_topics(cluster, partitions=PARTITIONS)
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        yield Real(cluster, producer)
    finally:
        await producer.stop()


def output(id: str, route: str = "r") -> Output:
    return Output("events", b"e:p/n", b"{}", ((record.ID, id.encode()), (record.ACCOUNT, b"a")), route.encode())


async def test_an_ack_says_where_the_record_stands(subject: Subject) -> None:
    first = await subject.log.submit(output("1"))
    second = await subject.log.submit(output("2"))
    assert (first.topic, first.offset, second.offset) == ("events", 0, 1)
    assert first.partition == second.partition
    assert await subject.ids() == [(first.partition, "1"), (first.partition, "2")]


async def test_submitted_together_they_keep_their_order(subject: Subject) -> None:
    acks = [subject.log.submit(output(str(n))) for n in range(300)]
    stand = [await ack for ack in acks]
    assert [at.offset for at in stand] == list(range(300))
    assert [id for _, id in await subject.ids()] == [str(n) for n in range(300)]


async def test_written_together_all_are_acked(subject: Subject) -> None:
    stand = await subject.log.write([output(str(n), route=str(n)) for n in range(100)])
    assert len(stand) == 100
    assert {at.partition for at in stand} == set(range(PARTITIONS))
    by_place = {(at.partition, at.offset) for at in stand}
    assert len(by_place) == 100
    assert len(await subject.ids()) == 100


async def test_the_same_route_is_the_same_partition_in_both(subject: Subject) -> None:
    other = Memory(MemoryLog(partitions=PARTITIONS))
    for route in map(str, range(20)):
        assert (await subject.log.submit(output("i", route))).partition == (
            await other.log.submit(output("i", route))
        ).partition


async def test_writing_nothing_is_fine(subject: Subject) -> None:
    assert list(await subject.log.write([])) == []


async def test_what_is_closed_raises_retry_and_says_why(subject: Subject) -> None:
    assert subject.log.ready() is None
    await subject.close()
    assert subject.log.ready()
    with pytest.raises(Retry):
        await subject.log.submit(output("1"))
    with pytest.raises(Retry):
        await subject.log.write([output("1")])


async def test_one_cancelled_caller_takes_nothing_from_the_others(subject: Subject) -> None:
    first, second = (asyncio.ensure_future(subject.log.submit(output(id))) for id in ("1", "2"))
    first.cancel()
    assert (await second).offset == 1
    assert [id for _, id in await subject.ids()] == ["1", "2"]
