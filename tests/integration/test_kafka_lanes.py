"""Lanes on a real broker: order, fairness, progress past a slow record, poison that kills, bounded memory."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from millrace_core import limits
from millrace_core.errors import Reject, Retry
from millrace_core.record import ACCOUNT, Output, Received, header
from millrace_kafka.admin import Admin, create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.lanes import Lane, Lanes
from millrace_kafka.producer import PlainProducer
from millrace_kafka.progress import decode
from millrace_kafka.reader import read_all
from millrace_kafka.routing import Metadata
from tests.support.processing import Recorder, dying, positions, producing, running, values, viewing
from tests.support.waiting import eventually

Work = Callable[[Received], Awaitable[Sequence[Output]]]


class Doing:
    """Work that notes what it does. What is named in `blocked` waits until it is let go."""

    def __init__(self, *blocked: bytes) -> None:
        self.begun: list[bytes] = []
        self.done: list[bytes] = []
        self.running = 0
        self.most_running = 0
        self.blocked = {value: asyncio.Event() for value in blocked}

    async def __call__(self, record: Received) -> list[Output]:
        value = record.value or b""
        self.begun.append(value)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if value in self.blocked:
                await self.blocked[value].wait()
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        self.done.append(value)
        return [Output("delivery-facts", record.key, value)]


def lane(record: Received) -> Lane:
    return Lane((header(record, ACCOUNT) or b"").decode(), (record.key or b"").decode(), concurrency=32)


def ordered(record: Received) -> Lane:
    return Lane((header(record, ACCOUNT) or b"").decode(), (record.key or b"").decode(), ordered=True)


def lanes(cluster: Cluster, producer: PlainProducer, work: Work, **more: Any) -> Any:
    given: dict[str, Any] = {"lane": lane, **more}
    return Lanes(
        cluster,
        group="dispatcher",
        topics=("deliveries", "deliveries-tx", "deliveries-overflow"),
        work=work,
        producer=producer,
        **given,
    )


def deliveries(*names: bytes, key: bytes = b"endpoint", account: bytes = b"a", partition: int = 0) -> list[Output]:
    return [Output("deliveries", key, name, ((ACCOUNT, account),), partition=partition) for name in names]


async def at(cluster: Cluster, expected: dict[int, int]) -> None:
    async def there() -> bool:
        found = await positions(cluster, "dispatcher", "deliveries")
        assert found == expected, found
        return True

    await eventually(there, timeout_s=20, every_s=0.05)


async def metadata(cluster: Cluster) -> Any:
    async with Admin(cluster) as admin:
        committed = (await admin.committed("dispatcher", ["deliveries"]))["deliveries", 0]
    return decode(committed.offset, committed.metadata)


async def facts(cluster: Cluster) -> list[bytes]:
    return values(await read_all(cluster, ["delivery-facts"]))


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=1)
    return cluster


async def test_each_record_is_worked_on_once_and_its_outputs_written(topics: Cluster) -> None:
    doing = Doing()
    names = [b"%d" % n for n in range(3_000)]
    async with producing(topics) as producer:
        await producer.write(deliveries(*names))
        async with running(lanes(topics, producer, doing)) as made:
            await at(topics, {0: 3_000})
            assert made.ready() is None
            assert (made.running, made.buffered) == (0, 0)
    assert Counter(doing.begun) == Counter(names)
    assert Counter(await facts(topics)) == Counter(names)


async def test_order_is_kept_inside_a_key_where_it_is_asked_for(topics: Cluster) -> None:
    doing = Doing(b"k1-0")
    async with producing(topics) as producer:
        for n in range(20):
            await producer.write(deliveries(b"k1-%d" % n, key=b"k1") + deliveries(b"k2-%d" % n, key=b"k2"))
        async with running(lanes(topics, producer, doing, lane=ordered)):
            await eventually(lambda: len(doing.done) == 20)
            assert doing.done == [b"k2-%d" % n for n in range(20)]  # the other key does not wait
            doing.blocked[b"k1-0"].set()
            await at(topics, {0: 40})
    assert doing.done[20:] == [b"k1-%d" % n for n in range(20)]


async def test_a_lane_runs_no_more_than_its_width_and_all_no_more_than_the_bound(topics: Cluster) -> None:
    doing = Doing(*(b"%d" % n for n in range(50)))
    async with producing(topics) as producer:
        await producer.write(deliveries(*doing.blocked))
        async with running(lanes(topics, producer, doing, lane=lambda r: Lane("a", "k", concurrency=7))) as made:
            await eventually(lambda: made.running == 7 and len(doing.begun) == 7)
            for gate in doing.blocked.values():
                gate.set()
            await at(topics, {0: 50})
    assert doing.most_running == 7


async def test_a_small_account_does_not_wait_for_a_big_ones_queue(topics: Cluster) -> None:
    names = [b"big%d" % n for n in range(500)]
    doing = Doing(*names)
    async with producing(topics) as producer:
        await producer.write(deliveries(*names, account=b"big") + deliveries(b"small", account=b"small"))
        async with running(lanes(topics, producer, doing, in_flight_max=10)) as made:
            await eventually(lambda: made.buffered == 501 or b"small" in doing.done)
            doing.blocked[doing.begun[0]].set()  # one place becomes free
            await eventually(lambda: b"small" in doing.done)
            assert len(doing.begun) <= 13
            for gate in doing.blocked.values():
                gate.set()
            await at(topics, {0: 501})


async def test_a_slow_record_holds_nobody_up_and_what_was_done_past_it_is_not_repeated(topics: Cluster) -> None:
    names = [b"%d" % n for n in range(1_000)]
    doing = Doing(b"3")
    async with producing(topics) as producer:
        await producer.write(deliveries(*names))
        async with dying(lanes(topics, producer, doing)):
            await eventually(lambda: len(doing.done) == 999)
            await at(topics, {0: 3})

            async def noted() -> bool:
                return bool((await metadata(topics)).done == ((4, 1_000),))

            await eventually(noted)
        again = Doing()
        async with running(lanes(topics, producer, again)):
            await at(topics, {0: 1_000})
    assert again.begun == [b"3"]
    assert Counter(await facts(topics)) == Counter(names)


async def test_no_more_is_held_than_the_bound(topics: Cluster) -> None:
    names = [b"%d" % n for n in range(900)]
    doing = Doing(*names)
    async with producing(topics) as producer:
        await producer.write(deliveries(*names))
        async with running(lanes(topics, producer, doing, buffered_max=100, in_flight_max=20)) as made:
            await eventually(lambda: made.buffered == 100)
            most = 0
            while len(doing.done) < 900:
                for name in tuple(doing.begun):
                    doing.blocked[name].set()
                most = max(most, made.buffered)
                await asyncio.sleep(0.001)
            assert most <= 100
            await at(topics, {0: 900})
    assert doing.most_running <= 20


async def test_a_partition_takes_no_more_open_records_than_its_metadata_has_room_for(topics: Cluster) -> None:
    names = [b"%d" % n for n in range(6_000)]
    doing = Doing(*names[::2])
    async with producing(topics) as producer:
        await producer.write(deliveries(*names))
        wide: dict[str, Any] = {"lane": lambda r: Lane("a"), "in_flight_max": 10_000, "buffered_max": 10_000}
        async with dying(lanes(topics, producer, doing, **wide)) as made:
            partition = await eventually(lambda: made._partitions.get(("deliveries", 0)))
            await eventually(lambda: partition.progress.is_full())
            assert len(doing.begun) < 6_000
            await eventually(lambda: made.running == len(partition.progress))

            async def noted() -> bool:
                done = sum(behind - first for first, behind in (await metadata(topics)).done)
                return bool(done >= len(doing.done))

            await eventually(noted)  # every second one: the worst order there is
        done = set(doing.done)
        again = Doing()
        async with running(lanes(topics, producer, again, **wide)):
            await at(topics, {0: 6_000})
    assert not done & set(again.begun)
    assert Counter(await facts(topics)) == Counter(names)


async def test_a_refused_record_is_parked_with_its_reason_and_its_facts(topics: Cluster) -> None:
    async def work(record: Received) -> list[Output]:
        if record.value == b"bad":
            raise Reject("bad, says the test")
        if record.value == b"huge":
            return [Output("delivery-facts", record.key, bytes(limits.RECORD_BYTES_MAX))]
        return [Output("delivery-facts", record.key, record.value)]

    def picky(record: Received) -> Lane:
        if record.value == b"garbage":
            raise ValueError("no lane, says the test")
        return lane(record)

    told = Recorder()
    dead = lambda record, reason: [Output("delivery-facts", record.key, b"dead")]  # noqa: E731
    async with producing(topics) as producer:
        await producer.write(deliveries(b"1", b"bad", b"huge", b"garbage", b"5"))
        async with running(lanes(topics, producer, work, lane=picky, observer=told, on_dead_letter=dead)):
            await at(topics, {0: 5})
    assert Counter(await facts(topics)) == Counter([b"1", b"5", b"dead", b"dead", b"dead"])
    parked = await read_all(topics, ["dead-letters"])
    assert {(record.value, bytes(header(record, "dead-offset") or b"")) for record in parked} == {
        (b"bad", b"1"),
        (b"huge", b"2"),
        (b"garbage", b"3"),
    }
    assert len(told.dead_letters) == 3


async def test_work_is_tried_again_when_asked_and_parked_after_three_failures_nobody_foresaw(topics: Cluster) -> None:
    tries: Counter[bytes] = Counter()

    async def work(record: Received) -> list[Output]:
        tries[record.value or b""] += 1
        if record.value == b"later" and tries[b"later"] < 3:
            raise Retry("later, says the test")
        if record.value == b"bug":
            raise ZeroDivisionError("a bug, says the test")
        return []

    async with producing(topics) as producer:
        await producer.write(deliveries(b"later", b"bug"))
        async with running(lanes(topics, producer, work)):
            await at(topics, {0: 2})
    assert tries == {b"later": 3, b"bug": 3}
    assert values(await read_all(topics, ["dead-letters"])) == [b"bug"]


async def test_the_effect_is_not_had_again_for_want_of_a_broker(topics: Cluster) -> None:
    class Failing(PlainProducer):
        failures = 2

        async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
            if self.failures:
                self.failures -= 1
                raise Retry("not now, says the test")
            return await super().write(outputs)

    doing = Doing()
    async with producing(topics, Failing) as failing, producing(topics) as producer:
        await producer.write(deliveries(b"1"))
        async with running(lanes(topics, failing, doing)):
            await at(topics, {0: 1})
    assert doing.begun == [b"1"]
    assert await facts(topics) == [b"1"]


async def test_a_record_counts_as_done_only_when_its_outputs_are_acked(topics: Cluster) -> None:
    class Deaf(PlainProducer):
        async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
            await asyncio.Event().wait()
            return []

    doing = Doing()
    async with producing(topics, Deaf) as deaf, producing(topics) as producer:
        await producer.write(deliveries(b"1"))
        async with dying(lanes(topics, deaf, doing)):
            await eventually(lambda: doing.done == [b"1"])
        assert (await positions(topics, "dispatcher", "deliveries"))[0] == 0
        async with running(lanes(topics, producer, Doing())):
            await at(topics, {0: 1})
    assert await facts(topics) == [b"1"]


async def test_after_an_unclean_end_the_first_open_record_is_alone_and_the_third_death_parks_it(
    topics: Cluster,
) -> None:
    names = [b"killer", *(b"%d" % n for n in range(20))]
    told = Recorder()
    async with producing(topics) as producer:
        await producer.write(deliveries(*names))
        crowd = Doing(*names)
        async with dying(lanes(topics, producer, crowd)):
            await eventually(lambda: len(crowd.begun) == 21)
            await eventually(lambda: _is_marked(topics, alone=0))
        for death in (2, 3):
            await _dies_alone(topics, producer, Doing(*names), death)
        after = Doing()
        async with running(lanes(topics, producer, after, observer=told)):
            await at(topics, {0: 21})
    assert b"killer" not in after.begun
    assert Counter(after.begun) == Counter(names[1:])
    assert values(await read_all(topics, ["dead-letters"])) == [b"killer"]
    assert "died" in told.dead_letters[0][3]


async def test_a_suspect_that_cannot_be_read_yet_holds_nobody_up(cluster: Cluster) -> None:
    """The buffer is full of another partition's records before the suspect's first one comes."""
    await create_topics(cluster, partitions=2)
    crowd, after = Doing(b"suspect"), Doing()
    others = [b"%d" % n for n in range(50)]
    async with producing(cluster) as producer:
        await producer.write(deliveries(b"suspect", partition=1))
        async with dying(lanes(cluster, producer, crowd)):
            await eventually(lambda: crowd.begun == [b"suspect"])
        made = lanes(cluster, producer, after, buffered_max=10)
        poll = made._feed.poll

        async def late(**more: Any) -> Any:
            suspect = made._feed.tp(("deliveries", 1))
            if made._feed.parts:
                (made._feed.live.resume if b"9" in after.begun else made._feed.live.pause)(suspect)
            return await poll(**more)

        made._feed.poll = late
        async with running(made):
            await eventually(lambda: made.ready() is None and made._suspects, timeout_s=20)
            await producer.write(deliveries(*others, partition=0))
            await at(cluster, {0: 50, 1: 1})
    assert Counter(after.begun) == Counter([*others, b"suspect"])


async def _dies_alone(cluster: Cluster, producer: PlainProducer, alone: Doing, death: int) -> None:
    async with dying(lanes(cluster, producer, alone)):
        await eventually(lambda: alone.begun == [b"killer"])
        await eventually(lambda: _is_marked(cluster, alone=death - 1))
        assert alone.most_running == 1


async def _is_marked(cluster: Cluster, *, alone: int) -> bool:
    mark = await metadata(cluster)
    return not mark.is_clean and mark.alone == alone


async def test_deaths_that_a_record_did_not_cause_are_forgotten_once_it_is_done(topics: Cluster) -> None:
    async with producing(topics) as producer:
        for n in range(5):
            await producer.write(deliveries(b"%d" % n))
            await _dies_after(topics, producer, n)
        async with running(lanes(topics, producer, Doing())):
            await at(topics, {0: 5})
    assert Counter(await facts(topics)).keys() == {b"%d" % n for n in range(5)}
    assert await read_all(topics, ["dead-letters"]) == []


async def _dies_after(cluster: Cluster, producer: PlainProducer, n: int) -> None:
    """Each life finishes what the one before left, and dies with the next record open."""
    doing = Doing(b"%d" % n)
    async with dying(lanes(cluster, producer, doing)):
        await eventually(lambda: b"%d" % n in doing.begun)
        await at(cluster, {0: n})


async def test_a_clean_end_is_known_as_one(topics: Cluster) -> None:
    async with producing(topics) as producer:
        await producer.write(deliveries(b"1"))
        async with running(lanes(topics, producer, Doing())):
            await at(topics, {0: 1})
            assert not (await metadata(topics)).is_clean
        assert (await metadata(topics)).is_clean


async def test_work_waits_until_its_view_has_passed_what_asked_for_it(topics: Cluster) -> None:
    writer, doing = ControlWriter(topics), Doing()
    await writer.start()
    async with producing(topics) as producer, viewing(topics) as view:
        await writer.write([("endpoint", "a", "e", 1, b"{}")])
        ahead = view.position + 3
        stamped = [Output("deliveries", b"k", b"1", ((ACCOUNT, b"a"), ("control", b"%d" % ahead)), partition=0)]
        await producer.write(stamped)
        async with running(lanes(topics, producer, doing, view=view)) as made:
            await eventually(lambda: made.running == 1)
            assert doing.begun == []
            await writer.write([("endpoint", "a", "e", n, b"{}") for n in range(2, 6)])
            await at(topics, {0: 1})
    await writer.stop()


async def test_what_runs_goes_on_through_a_rebalance_and_is_not_repeated(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=2)
    doing, other = Doing(b"slow"), Doing()
    async with producing(cluster) as producer:
        first, second = lanes(cluster, producer, doing), lanes(cluster, producer, other)
        async with running(first):
            await producer.write(deliveries(b"slow", b"fast", partition=0) + deliveries(b"1", partition=1))
            await eventually(lambda: len(doing.begun) == 3)
            async with running(second):
                await eventually(lambda: bool(first._owned) and bool(second._owned), timeout_s=20)
                mine = first if ("deliveries", 0) in first._owned else second
                await eventually(lambda: not first._changed.is_set() and not second._changed.is_set())
                await producer.write(deliveries(b"4", partition=0) + deliveries(b"5", partition=1))
                await eventually(lambda: Counter(doing.done + other.done)[b"4"] == 1)
                doing.blocked[b"slow"].set()
                await at(cluster, {0: 3, 1: 2})
    begun = Counter(doing.begun + other.begun)
    assert begun[b"slow"] == (1 if mine is first else 2)
    assert {name: count for name, count in begun.items() if name != b"slow"} == {
        b"fast": 1,
        b"1": 1,
        b"4": 1,
        b"5": 1,
    }
