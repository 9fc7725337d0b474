"""The transactional processor on a real broker: exactly once through crashes, fences, refusals and poison."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from millrace_core.clock import SystemClock
from millrace_core.errors import Reject, Retry
from millrace_core.handling import State
from millrace_core.record import Output, Received
from millrace_kafka import client as clients
from millrace_kafka.admin import Admin, create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader, read_all
from millrace_kafka.store import MemoryStores, StateStores
from millrace_kafka.transaction import Placed, Transactions
from millrace_kafka.transactional import TransactionalProcessor
from tests.support.waiting import eventually

INPUTS = ("run-commands", "run-commands-tx", "step-results")
RUNS = 12


class Counting:
    """Counts the records of each key; writes one fact a record that names the count."""

    def __init__(self) -> None:
        self.loaded = False

    def load(self, state: State, read_back: Iterable[Received]) -> None:
        self.loaded = True

    def handle(self, record: Received, state: State, now_ms: int) -> Sequence[Output]:
        key = record.key or b""
        count = int(state.get(key) or b"0") + 1
        state.put(key, b"%d" % count)
        if record.value == b"poison":
            raise Reject("poison, says the test")
        if record.value == b"bug":
            raise ZeroDivisionError("a bug, says the test")
        return [Output("run-facts", key, b"%d" % count)]

    def due(self, state: State, now_ms: int, limit: int) -> Sequence[Output]:
        return ()

    def next_due_ms(self) -> int | None:
        return None


def processor(cluster: Cluster, *, store: StateStores | None = None, **more: Any) -> TransactionalProcessor[Counting]:
    return TransactionalProcessor(
        cluster,
        group="orchestrator",
        inputs=INPUTS,
        changelog="orchestrator-changelog",
        handler=lambda _: Counting(),
        store=store or MemoryStores(),
        clock=SystemClock(),
        **more,
    )


@asynccontextmanager
async def running(made: TransactionalProcessor[Counting]) -> AsyncIterator[TransactionalProcessor[Counting]]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(made.run(stop))
        try:
            yield made
        finally:
            stop.set()


@asynccontextmanager
async def writing(cluster: Cluster) -> AsyncIterator[PlainProducer]:
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=4)
    return cluster


async def facts(cluster: Cluster) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for record in await read_all(cluster, ["run-facts"]):
        found.setdefault(record.key or b"", []).append(int(record.value or b"0"))
    return found


def commands(start: int, count: int, value: bytes = b"go") -> list[Output]:
    return [Output("run-commands", b"run-%d" % (n % RUNS), value) for n in range(start, start + count)]


async def total(cluster: Cluster, count: int) -> dict[bytes, list[int]]:
    async def all_there() -> dict[bytes, list[int]]:
        found = await facts(cluster)
        assert sum(map(len, found.values())) >= count, found
        return found

    return await eventually(all_there, timeout_s=30, every_s=0.1)


def exact(found: dict[bytes, list[int]], count: int) -> None:
    assert sum(map(len, found.values())) == count
    for key, counts in found.items():
        assert counts == list(range(1, len(counts) + 1)), (key, counts)


async def test_every_record_counts_once_in_order(topics: Cluster) -> None:
    async with running(processor(topics)) as made, writing(topics) as producer:
        await producer.write(commands(0, 300))
        exact(await total(topics, 300), 300)
        assert made.ready() is None


async def test_a_new_life_restores_state_and_position_from_the_log(topics: Cluster) -> None:
    async with writing(topics) as producer:
        async with running(processor(topics)):
            await producer.write(commands(0, 100))
            await total(topics, 100)
        await producer.write(commands(100, 100))
        async with running(processor(topics)):
            exact(await total(topics, 200), 200)


async def test_a_position_passes_what_nobody_reads(topics: Cluster) -> None:
    """Aborted records and markers: when the log is cut behind them, a position before them would be off it."""
    writer = clients.producer(topics, transactional_id="aborts")
    await writer.start()
    async with running(processor(topics)) as made, Reader(topics) as reader, Admin(topics) as admin:
        await eventually(lambda: made.ready() is None, timeout_s=20)
        await writer.begin_transaction()
        await writer.send_and_wait(topics.topic("run-commands-tx"), b"never", partition=0)
        await writer.abort_transaction()
        await writer.stop()
        part = ("run-commands-tx", 0)

        async def passed() -> bool:
            end, at = (await reader.ends([part]))[part], (await admin.committed("orchestrator", [part[0]]))[part].offset
            assert at == end == 2, (at, end)
            return True

        await eventually(passed, timeout_s=20, every_s=0.1)


async def test_two_members_share_and_a_third_life_counts_on(topics: Cluster) -> None:
    async with writing(topics) as producer, running(processor(topics, instance="a")) as one:
        await eventually(lambda: one.ready() is None, timeout_s=20)
        await producer.write(commands(0, 60))
        async with running(processor(topics, instance="b")) as two:
            for start in range(60, 300, 60):
                await producer.write(commands(start, 60))
            await eventually(lambda: two.ready() is None and one.ready() is None, timeout_s=20)
            await total(topics, 300)
        await producer.write(commands(300, 60))
        exact(await total(topics, 360), 360)


async def test_poison_is_parked_with_nothing_of_what_it_did_and_the_partition_goes_on(topics: Cluster) -> None:
    async with running(processor(topics)), writing(topics) as producer:
        for value in (b"go", b"poison", b"go", b"bug", b"go"):
            await producer.write([Output("run-commands", b"run-1", value)])
        found = await total(topics, 3)
        assert found == {b"run-1": [1, 2, 3]}
    letters = await read_all(topics, ["dead-letters-tx"])
    assert [letter.value for letter in letters] == [b"poison", b"bug"]
    reasons = [dict(letter.headers)["dead-reason"] for letter in letters]
    assert reasons[0] == b"poison, says the test"
    assert b"ZeroDivisionError" in reasons[1]


async def test_a_record_that_can_be_neither_handled_nor_parked_stops_its_partition(topics: Cluster) -> None:
    """No real record is too large for a dead letter (it may be 64 KB larger), so the topic is made to be missing."""

    class WithoutDeadLetters(Transactions):
        def place(self, output: Output) -> Placed:
            if output.topic == "dead-letters-tx":
                raise Reject("no room for it, says the test")
            return super().place(output)

    made = processor(topics, transactions=WithoutDeadLetters)
    async with running(made), writing(topics) as producer:
        await producer.write([Output("run-commands", b"run-1", b"poison"), Output("run-commands", b"run-1", b"go")])
        await eventually(lambda: "neither handled" in (made.ready() or ""), timeout_s=20)
    assert await facts(topics) == {}


async def test_the_range_assignor_keeps_co_partitioned_inputs_together_and_another_splits_them(
    topics: Cluster,
) -> None:
    """Planted: with round robin the inputs of one number go to different members, and the processor says so."""
    made = [processor(topics, instance=f"m{n}", assignors=(RoundRobinPartitionAssignor,)) for n in range(5)]
    async with running(made[0]), running(made[1]), running(made[2]), running(made[3]), running(made[4]):
        await eventually(lambda: any(each.split for each in made), timeout_s=30)
        assert any("split among members" in (each.ready() or "") for each in made)


async def test_a_zombies_transaction_is_fenced(topics: Cluster) -> None:
    name = topics.transactional_id("orchestrator-0")
    old = Transactions(topics, transactional_id=name, group="orchestrator")
    new = Transactions(topics, transactional_id=name, group="orchestrator")
    await old.start()
    await old.commit([old.place(Output("run-facts", b"k", b"old"))], {})
    await new.start()
    try:
        with pytest.raises(Retry, match="unknown"):
            await old.commit([old.place(Output("run-facts", b"k", b"zombie"))], {})
        await new.commit([new.place(Output("run-facts", b"k", b"new"))], {})
    finally:
        await old.discard()
        await new.discard()
    assert [r.value for r in await read_all(topics, ["run-facts"])] == [b"old", b"new"]


@pytest.mark.parametrize("await_sends", [True, False], ids=["sends awaited", "planted: sends not awaited"])
async def test_a_refused_send_must_not_be_committed_around(topics: Cluster, await_sends: bool) -> None:
    """aiokafka commits a transaction although a send inside it was refused. Awaiting the sends is what notices."""
    made = Transactions(topics, transactional_id=topics.transactional_id("refused"), group="orchestrator")
    await made.start()
    good = made.place(Output("run-facts", b"good", b"1", partition=0))
    _, place, _ = made.place(Output("steps", b"bad", b"", partition=0))
    refused = (Output("steps", b"bad", _noise(2_300_000)), place, 0)
    try:
        if await_sends:
            with pytest.raises(Retry):
                await made.commit([good, refused], {})
        else:
            await made.commit([good, refused], {}, await_sends=False)
    finally:
        await made.discard()
    seen = [record.value for record in await read_all(topics, ["run-facts", "steps"])]
    # Not awaited, half of the transaction is there, and its author believes all of it.
    assert seen == ([] if await_sends else [b"1"])


def _noise(size: int) -> bytes:
    import random

    return random.Random(1).randbytes(size)
