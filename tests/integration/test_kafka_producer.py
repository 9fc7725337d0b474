"""The plain producer and the reader on a real broker."""

import asyncio

import pytest

from millrace_core import limits
from millrace_core.errors import Reject, Retry
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.feed import OffLog
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader, read_all
from tests.support.processing import producing, values
from tests.support.waiting import eventually


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=2)
    return cluster


def event(n: int, *, route: bytes = b"r") -> Output:
    return Output("events", b"key", b"value %d" % n, (("account", b"a"), ("id", b"%d" % n)), route=route)


async def test_what_is_acked_stands_where_the_ack_says_with_the_brokers_time(topics: Cluster) -> None:

    async with producing(topics) as producer:
        outputs = [event(n, route=b"%d" % n) for n in range(50)]
        acked = await producer.write(outputs)
    stands = {(r.partition, r.offset): r for r in await read_all(topics, ["events"])}
    assert len(stands) == 50
    for output, at in zip(outputs, acked, strict=True):
        record = stands[at.partition, at.offset]
        assert (record.key, record.value, tuple(record.headers)) == (output.key, output.value, output.headers)
        assert record.timestamp == at.timestamp
        assert at.topic == "events"


@pytest.mark.parametrize("way", ["write", "check"])
async def test_topics_that_are_made_later_are_found(cluster: Cluster, way: str) -> None:
    """Also after a broker that had just come back said that it knew of none."""
    async with producing(cluster) as producer:

        async def is_found() -> bool:
            try:
                producer.check(event(1)) if way == "check" else await producer.write([event(1)])
            except Retry:
                return False
            return True

        assert not await is_found()
        await create_topics(cluster, partitions=2)
        assert await eventually(is_found, timeout_s=10)
        await producer.write([event(2)])
    assert values(await read_all(cluster, ["events"]))[-1] == b"value 2"


async def test_records_of_a_partition_keep_their_order_across_calls_and_batches(topics: Cluster) -> None:
    async with producing(topics) as producer, asyncio.TaskGroup() as tasks:
        for start in range(0, 3_000, 100):
            tasks.create_task(producer.write([event(n) for n in range(start, start + 100)]))
    assert values(await read_all(topics, ["events"])) == [b"value %d" % n for n in range(3_000)]


async def test_one_write_may_be_larger_than_any_batch(topics: Cluster) -> None:
    async with producing(topics) as producer:
        large = [Output("events", b"k", bytes([n]) * 700_000) for n in range(8)]
        assert len({(at.partition, at.offset) for at in await producer.write(large)}) == 8
    assert values(await read_all(topics, ["events"])) == [output.value for output in large]


async def test_submitted_in_one_turn_they_travel_in_one_batch(topics: Cluster) -> None:
    async with producing(topics) as producer:
        futures = [producer.submit(event(n)) for n in range(100)]
        assert producer.in_flight == 100
        acked = [await future for future in futures]
        assert producer.in_flight == 0
    assert [at.offset for at in acked] == list(range(100))
    # LogAppendTime is one time for each batch that the broker appended.
    assert len({at.timestamp for at in acked}) == 1


async def test_the_greatest_record_fits_and_one_byte_more_is_refused_with_its_size(topics: Cluster) -> None:
    async with producing(topics) as producer:
        await producer.write([Output("events", b"k", bytes(limits.RECORD_VALUE_BYTES_MAX))])
        with pytest.raises(Reject, match=r"\d+ bytes, events holds records up to 2097152"):
            await producer.write([Output("events", b"k", b"v" * limits.RECORD_BYTES_MAX)])
    assert len(await read_all(topics, ["events"])) == 1


async def test_a_refused_record_among_good_ones_harms_none(topics: Cluster) -> None:
    async with producing(topics) as producer:
        with pytest.raises(Reject):
            await producer.write([event(0), Output("events", b"k", b"v" * limits.RECORD_BYTES_MAX), event(1)])
        assert await read_all(topics, ["events"]) == []
        await producer.write([event(2)])
        good = producer.submit(event(3))
        with pytest.raises(Reject):
            producer.submit(Output("events", b"k", b"v" * limits.RECORD_BYTES_MAX))
        await good
        assert producer.ready() is None
    assert values(await read_all(topics, ["events"])) == [b"value 2", b"value 3"]


async def test_topics_of_transactional_writers_are_refused(topics: Cluster) -> None:
    async with producing(topics) as producer:
        with pytest.raises(Reject, match="plain"):
            await producer.write([Output("run-commands-tx", b"k", b"v")])


async def test_a_cancelled_caller_takes_nothing_back_and_harms_no_other(topics: Cluster) -> None:
    async with producing(topics) as producer:
        cancelled = asyncio.ensure_future(producer.write([event(0)]))
        other = asyncio.ensure_future(producer.write([event(1)]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await other
    assert values(await read_all(topics, ["events"])) == [b"value 0", b"value 1"]


async def test_without_a_broker_it_says_so_and_takes_nothing() -> None:
    producer = PlainProducer(Cluster("127.0.0.1:1"))
    await producer.start()
    try:
        assert "cannot be reached" in (producer.ready() or "")
        with pytest.raises(Retry, match="cannot be reached"):
            await producer.write([event(0)])
    finally:
        await producer.stop()


async def test_stopped_it_has_sent_what_it_was_given(topics: Cluster) -> None:
    async with producing(topics) as producer:
        futures = [producer.submit(event(n)) for n in range(10)]
    assert [(await future).offset for future in futures] == list(range(10))


async def test_a_stretch_is_read_exactly(topics: Cluster) -> None:
    async with producing(topics) as producer:
        await producer.write([event(n) for n in range(1_000)])
    part = next((r.topic, r.partition) for r in await read_all(topics, ["events"]))
    part = ("events", part[1])
    async with Reader(topics) as reader:
        found = [r.offset async for batch in reader.read({part: 250}, {part: 750}, max_records=100) for r in batch]
    assert found == list(range(250, 750))


async def read_for_ever(reader: Reader) -> None:
    while True:
        await reader.poll()


async def test_a_position_outside_the_log_is_said_never_moved(topics: Cluster) -> None:
    async with Reader(topics) as reader:
        reader.assign({("events", 0): 5})
        with pytest.raises(OffLog) as raised:
            await read_for_ever(reader)
    assert raised.value.parts == (("events", 0),)
