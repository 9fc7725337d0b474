"""Timers on a real broker: in time, once, and not at all before their time by a clock that lies."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from millrace_core.clock import ManualClock, SystemClock
from millrace_core.ids import timer_id_of
from millrace_core.messages import CancelTimer, Raw, SetTimer, Tick, encode
from millrace_core.record import ACCOUNT, ID, SOURCE, Output, Received
from millrace_core.steady_clock import SteadyClock
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_kafka.ticker import Ticker
from tests.support.plans import ACCOUNT as OWNING_ACCOUNT
from tests.support.plans import run_id
from tests.support.task_services import Life, living, scheduling
from tests.support.waiting import eventually

LATE_MS_MAX = 250  # 50 ms on a machine with nothing else to do


@pytest.fixture
async def log(cluster: Cluster) -> AsyncIterator[PlainProducer]:
    await create_topics(cluster, partitions=2)
    producer = PlainProducer(cluster)
    await producer.start()
    yield producer
    await producer.stop()


def set_timer(n: int, due_ms: int) -> Output:
    owner = run_id(n)
    message = SetTimer(
        id=timer_id_of(owner, "retry", 1),
        owner=owner,
        account=OWNING_ACCOUNT,
        due=due_ms,
        topic="deliveries-tx",
        key=f"we_{n}",
        record=Raw(b"%d" % due_ms),
    )
    headers = ((ACCOUNT, b"acc_1"), (ID, message.id.encode()), (SOURCE, b"deliveries:0:%d" % n))
    return Output("timers", owner.encode(), encode(message), headers)


async def fired(cluster: Cluster, count: int) -> list[Received]:
    async def all_there() -> list[Received]:
        found = await read_all(cluster, ["deliveries-tx"])
        assert len(found) >= count, len(found)
        return found

    return await eventually(all_there, timeout_s=30, every_s=0.05)


async def test_timers_fire_in_time(cluster: Cluster, log: PlainProducer) -> None:
    clock = SystemClock()
    async with living(scheduling(cluster)) as life:
        await life.ready()
        now_ms = clock.now_ms()
        await log.write([set_timer(n, now_ms + 300 + 100 * n) for n in range(10)])
        found = await fired(cluster, 10)
    late_ms = sorted(record.timestamp - int(record.value or b"") for record in found)
    assert late_ms[0] >= 0
    assert late_ms[len(late_ms) // 2] <= LATE_MS_MAX, late_ms


async def test_each_fires_once_though_it_is_set_again_and_the_scheduler_dies(
    cluster: Cluster, log: PlainProducer
) -> None:
    due_ms = SystemClock().now_ms()
    timers = [set_timer(n, due_ms + 20 * n) for n in range(100)]
    life = Life(scheduling(cluster))
    await log.write(timers)
    for _ in range(3):
        await life.ready()
        await life.kill()
        life = Life(scheduling(cluster))
        await log.write(timers)
    found = await fired(cluster, 100)
    await log.write([*timers, set_timer(100, due_ms)])
    await eventually(lambda: _has(cluster, b"we_100"), timeout_s=20, every_s=0.1)
    await life.stop()
    found = await read_all(cluster, ["deliveries-tx"])
    assert sorted(record.key or b"" for record in found) == sorted(b"we_%d" % n for n in range(101))


async def _has(cluster: Cluster, key: bytes) -> bool:
    return key in {record.key for record in await read_all(cluster, ["deliveries-tx"])}


async def test_a_clock_that_lies_fires_nothing_before_the_broker_agrees(cluster: Cluster, log: PlainProducer) -> None:
    wall = ManualClock(SystemClock().now_ms())
    clock = SteadyClock(wall)
    ticker, stop = Ticker(clock, log.write, every_s=0.02), asyncio.Event()
    await ticker.first(stop)
    hour_ms = 3_600_000
    async with living(scheduling(cluster, clock)), asyncio.TaskGroup() as group:
        group.create_task(ticker.run(stop))
        await log.write([set_timer(1, wall.now_ms() + hour_ms)])
        wall.jump(2 * 3_600)
        asked = len(await _ticks(cluster))
        await eventually(lambda: _more_ticks(cluster, asked + 1), timeout_s=20, every_s=0.05)
        assert clock.now_ms() < wall.now_ms() - hour_ms
        await log.write([set_timer(2, 0)])
        await fired(cluster, 1)
        stop.set()
    assert [record.key for record in await read_all(cluster, ["deliveries-tx"])] == [b"we_2"]


async def _ticks(cluster: Cluster) -> list[Received]:
    return [record for record in await read_all(cluster, ["timers"]) if record.value == encode(Tick())]


async def _more_ticks(cluster: Cluster, count: int) -> bool:
    return len(await _ticks(cluster)) > count


async def test_a_cancelled_timer_does_not_fire(cluster: Cluster, log: PlainProducer) -> None:
    due_ms = SystemClock().now_ms() + 1_500
    cancel = CancelTimer(id=timer_id_of(run_id(1), "retry", 1), owner=run_id(1), account=OWNING_ACCOUNT)
    async with living(scheduling(cluster)):
        await log.write([set_timer(1, due_ms), set_timer(2, due_ms)])
        headers = ((ACCOUNT, b"acc_1"), (ID, cancel.id.encode()))
        await log.write([Output("timers", run_id(1).encode(), encode(cancel), headers)])
        found = await fired(cluster, 1)
        assert [record.key for record in found] == [b"we_2"]
