"""The idempotent processor on a real broker: its five rules, and planted faults that break them."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from millrace_core import limits
from millrace_core.clock import ManualClock, SystemClock
from millrace_core.errors import Reject, Retry
from millrace_core.handling import Handled
from millrace_core.record import CONTROL, Output, Received, header, source_of
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.idempotent import IdempotentProcessor
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_kafka.routing import Metadata
from tests.support.processing import Recorder, dying, positions, producing, running, values, viewing
from tests.support.waiting import eventually


class Matching:
    """One delivery and one fact for each event, one changelog entry for each batch. Remembers what it was asked."""

    def __init__(self) -> None:
        self.restored: dict[int, list[bytes]] = {}
        self.forgotten: list[int] = []
        self.handled: list[bytes] = []
        self.calls: list[str] = []
        self.tallied: list[Output] = []

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes, int]]) -> None:
        self.calls.append(f"restore {partition}")
        self.restored[partition] = [key for key, _, _ in entries]

    def forget(self, partition: int) -> None:
        self.forgotten.append(partition)

    def tally(self) -> Sequence[Output]:
        taken, self.tallied = self.tallied, []
        return taken

    def handle(self, records: Sequence[Received], position: int) -> Handled:
        self.calls.append(f"handle {records[0].partition}")
        handled = Handled([], [], [])
        for record in records:
            value = record.value or b""
            if value == b"bug":
                raise ZeroDivisionError("a bug, says the test")
            if value == b"poison":
                raise Reject("poison, says the test")
            if value == b"huge":
                value = bytes(limits.RECORD_BYTES_MAX)
            self.handled.append(value)
            head = (("source", source_of(record)), ("control", b"%d" % position))
            handled.outputs.append(Output("deliveries", b"endpoint", value, head))
            handled.facts.append(Output("event-facts", record.key, value, head))
            handled.changes.append((record.partition, b"seen " + value, b"%d" % record.offset))
            self.tallied.append(Output("tallies", b"account", value))
        return handled


def processor(
    cluster: Cluster,
    view: Any,
    producer: PlainProducer,
    kind: type[IdempotentProcessor] = IdempotentProcessor,
    **more: Any,
) -> Any:
    given: dict[str, Any] = {"handler": Matching(), "clock": SystemClock(), **more}
    return kind(
        cluster,
        group="matcher",
        topic="events",
        changelog="matcher-changelog",
        view=view,
        producer=producer,
        **given,
    )


def events(*names: bytes, partition: int | None = 0) -> list[Output]:
    return [Output("events", b"e:a/b", name, partition=partition) for name in names]


async def at(cluster: Cluster, expected: dict[int, int]) -> None:
    async def there() -> bool:
        found = await positions(cluster, "matcher", "events")
        assert found == expected, found
        return True

    await eventually(there, timeout_s=20, every_s=0.05)


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=2)
    return cluster


async def test_outputs_facts_changelog_and_tallies_are_written_and_the_position_committed(topics: Cluster) -> None:
    async with producing(topics) as producer, viewing(topics) as view:
        names = [b"%d" % n for n in range(1_000)]
        await producer.write(events(*names[:500]) + events(*names[500:], partition=1))
        async with running(processor(topics, view, producer)) as made:
            await at(topics, {0: 500, 1: 500})
            assert made.ready() is None
        for topic in ("deliveries", "event-facts", "tallies"):
            assert sorted(values(await read_all(topics, [topic]))) == sorted(names), topic
        changes = await read_all(topics, ["matcher-changelog"])
        assert {(r.partition, r.key) for r in changes} == {(n // 500, b"seen %d" % n) for n in range(1_000)}, (
            "an entry stands on its source's partition"
        )


async def test_stopped_it_has_committed_all_it_did(topics: Cluster) -> None:
    async with producing(topics) as producer, viewing(topics) as view:
        made = processor(topics, view, producer, facts_gather_s=30.0)
        async with running(made):
            await producer.write(events(b"1", b"2", b"3"))
            await eventually(lambda: len(made._handler.handled) == 3)
            assert await read_all(topics, ["event-facts"]) == []
        assert values(await read_all(topics, ["event-facts"])) == [b"1", b"2", b"3"]
        assert await positions(topics, "matcher", "events") == {0: 3, 1: 0}


@pytest.mark.parametrize("heeds", [True, False])
async def test_stopped_while_it_writes_facts_it_commits_nothing_whose_changelog_is_not_written(
    topics: Cluster, heeds: bool
) -> None:
    """A later position would be committed over the entries of what was being written, and repeats pass for new."""

    begun, go_on, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(PlainProducer):
        async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
            if outputs[0].topic == "event-facts" and not begun.is_set():
                begun.set()
                await go_on.wait()
            return await super().write(outputs)

    class Cuts(IdempotentProcessor):
        """Planted: the writing is cut off, and what it took is forgotten."""

        def _begin_again(self, partitions: Any, reason: str) -> None:
            if not stop.is_set():
                super()._begin_again(partitions, reason)

        async def _work(self, stop: asyncio.Event) -> None:
            await super()._work(stop)
            self._flushing = asyncio.Lock()

    async with producing(topics, Slow) as slow, viewing(topics) as view, asyncio.TaskGroup() as tasks:
        made = processor(topics, view, slow, IdempotentProcessor if heeds else Cuts)
        await slow.write(events(b"1"))
        task = tasks.create_task(made.run(stop))
        await begun.wait()
        await slow.write(events(b"2"))
        await eventually(lambda: made._partitions[0].gathered == 2)
        stop.set()
        if heeds:
            await eventually(lambda: made._flushing.locked() and not task.done())
            go_on.set()
        await task
        written = {record.key for record in await read_all(topics, ["matcher-changelog"])}
        done = (await positions(topics, "matcher", "events"))[0]
    assert ({b"seen 1", b"seen 2"} <= written if done == 2 else done == 0) == heeds


async def test_what_was_in_force_when_an_event_was_appended_is_known_when_it_is_handled(topics: Cluster) -> None:
    writer = ControlWriter(topics)
    await writer.start()
    async with producing(topics) as producer, viewing(topics) as view, running(processor(topics, view, producer)):
        expected = []
        for n in range(20):
            position = await writer.write([("subscription", "a", "s", n, b"{}")])
            await view.passed(position)
            await producer.write(events(b"%d" % n))
            expected.append(position)
        await at(topics, {0: 20, 1: 0})
        stamps = [int(header(record, CONTROL) or b"0") for record in await read_all(topics, ["deliveries"])]
        assert all(stamp >= least for stamp, least in zip(stamps, expected, strict=True))
    await writer.stop()


async def test_the_changelog_is_restored_before_the_first_record_is_handled(topics: Cluster) -> None:
    async with producing(topics) as producer, viewing(topics) as view:
        await producer.write([Output("matcher-changelog", b"old %d" % n, b"7", partition=1) for n in range(50)])
        await producer.write(events(b"new", partition=1))
        async with running(processor(topics, view, producer)) as made:
            await at(topics, {0: 0, 1: 1})
            assert made._handler.restored[1] == [b"old %d" % n for n in range(50)]
            assert made._handler.calls.index("restore 1") < made._handler.calls.index("handle 1")


async def test_it_is_not_ready_before_all_its_partitions_are_restored(topics: Cluster) -> None:
    during: list[str | None] = []

    class Looking(Matching):
        def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes, int]]) -> None:
            super().restore(partition, entries)
            during.append(made.ready())

    async with producing(topics) as producer, viewing(topics) as view:
        made = processor(topics, view, producer, handler=Looking())
        async with running(made):
            await eventually(lambda: made.ready() is None, timeout_s=20)
    assert during == ["restoring its partitions"] * 2


@pytest.mark.parametrize(("bad", "reason"), [(b"bug", "a bug"), (b"poison", "poison"), (b"huge", "bytes")])
async def test_a_record_that_cannot_be_handled_is_parked_alone(topics: Cluster, bad: bytes, reason: str) -> None:
    told = Recorder()
    letters: list[str] = []

    def on_dead_letter(record: Received, why: str) -> list[Output]:
        letters.append(why)
        return [Output("event-facts", record.key, b"dead")]

    async with producing(topics) as producer, viewing(topics) as view:
        await producer.write(events(b"1", b"2", bad, b"4", b"5"))
        async with running(processor(topics, view, producer, observer=told, on_dead_letter=on_dead_letter)):
            await at(topics, {0: 5, 1: 0})
        assert values(await read_all(topics, ["deliveries"])) == [b"1", b"2", b"4", b"5"]
        assert values(await read_all(topics, ["event-facts"])) == [b"1", b"2", b"dead", b"4", b"5"]
        parked = await read_all(topics, ["dead-letters"])
        assert values(parked) == [bad]
        assert reason in (header(parked[0], "dead-reason") or b"").decode()
        assert [(topic, n, offset) for topic, n, offset, _ in told.dead_letters] == [("events", 0, 2)]
        assert len(letters) == 1


async def test_what_can_be_neither_handled_nor_parked_stops_its_partition_and_no_other(topics: Cluster) -> None:
    class NoParking(PlainProducer):
        def check(self, output: Output) -> None:
            if output.topic == "dead-letters":
                raise Reject("no room, says the test")
            super().check(output)

    told = Recorder()
    async with producing(topics, NoParking) as producer, viewing(topics) as view:
        await producer.write(events(b"1", b"poison", b"3"))
        await producer.write(events(b"4", partition=1))
        async with running(processor(topics, view, producer, observer=told)) as made:
            await eventually(lambda: told.stops)
            assert told.stops[0][:2] == ("events", 0)
            assert "no room" in (made.ready() or "")
            await producer.write(events(b"5", partition=1))
            await at(topics, {0: 0, 1: 2})


async def test_a_position_outside_the_log_stops_the_partition_and_is_never_moved(topics: Cluster) -> None:
    """With a reset policy the records in between would be skipped without a word."""
    told = Recorder()
    async with producing(topics) as producer, viewing(topics) as view:
        await producer.write(events(*(b"%d" % n for n in range(10))))
        await producer.write(events(b"other", partition=1))
        admin = AIOKafkaAdminClient(bootstrap_servers=topics.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topics.topic("events"), 0): RecordsToDelete(before_offset=5)})
        await admin.close()
        async with running(processor(topics, view, producer, observer=told)) as made:
            await eventually(lambda: told.stops)
            assert told.stops[0][:2] == ("events", 0)
            await at(topics, {0: 0, 1: 1})
            assert "outside the log" in (made.ready() or "")
        assert values(await read_all(topics, ["deliveries"])) == [b"other"]


async def test_a_group_without_a_position_stops_and_says_what_to_do(topics: Cluster) -> None:
    told = Recorder()
    async with producing(topics) as producer, viewing(topics) as view:
        made = IdempotentProcessor(
            topics,
            group="nobody",
            topic="events",
            changelog="matcher-changelog",
            handler=Matching(),
            view=view,
            producer=producer,
            clock=SystemClock(),
            observer=told,
        )
        async with running(made):
            await eventually(lambda: len(told.stops) == 2)
            assert "millrace topics" in (made.ready() or "")


class Deaf(PlainProducer):
    """The broker takes nothing for `deliveries`: such writes never come back."""

    async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
        if any(output.topic == "deliveries" for output in outputs):
            await asyncio.Event().wait()
        return await super().write(outputs)


class CommitsFirst(IdempotentProcessor):
    """Planted: the position is committed before the outputs are acked."""

    async def _emit(self, outputs: list[Output]) -> None:
        if outputs:
            await self._commit({number: self._feed.position(("events", number)) for number in self._partitions})
        await super()._emit(outputs)


class FactsFirst(IdempotentProcessor):
    """Planted: facts go out before what they name."""

    def _decide(self, partition: Any, records: Sequence[Received], position: int) -> Any:
        decided = super()._decide(partition, records, position)
        partition.facts += decided.facts
        partition.gathered = partition.position
        partition.gathered_since = self._clock.monotonic()
        decided.facts = []
        return decided


@pytest.mark.parametrize("kind", [IdempotentProcessor, CommitsFirst, FactsFirst])
async def test_killed_before_its_outputs_are_acked_it_has_told_nothing_and_committed_nothing(
    topics: Cluster, kind: type[IdempotentProcessor]
) -> None:
    async with producing(topics, Deaf) as deaf, producing(topics) as producer, viewing(topics) as view:
        await producer.write(events(b"1", b"2"))
        made = processor(topics, view, deaf, kind)
        async with dying(made):
            await eventually(lambda: len(made._handler.handled) >= 2, timeout_s=30)
            if kind is FactsFirst:
                await eventually(lambda: _told(topics))
            elif kind is CommitsFirst:
                await at(topics, {0: 2, 1: 0})
        told, position = await _told(topics), await positions(topics, "matcher", "events")
        assert await read_all(topics, ["deliveries"]) == []
        is_sound = not told and position == {0: 0, 1: 0}
        assert is_sound == (kind is IdempotentProcessor)
        async with running(processor(topics, view, producer)):
            await at(topics, {0: 2, 1: 0})
        # What was committed before its outputs is lost for ever; all else comes after all.
        lost = [] if kind is not CommitsFirst else [b"1", b"2"]
        assert sorted(values(await read_all(topics, ["deliveries"])) + lost) == [b"1", b"2"]


async def _told(cluster: Cluster) -> list[bytes]:
    return values(await read_all(cluster, ["event-facts"]))


async def test_killed_after_its_outputs_it_repeats_them_with_the_same_sources(topics: Cluster) -> None:
    async with producing(topics) as producer, viewing(topics) as view:
        await producer.write(events(b"1", b"2"))
        made = processor(topics, view, producer, facts_gather_s=30.0)
        async with dying(made):
            await eventually(lambda: len(made._handler.handled) == 2 and made._partitions[0].position == 2)
        assert await positions(topics, "matcher", "events") == {0: 0, 1: 0}
        async with running(processor(topics, view, producer)):
            await at(topics, {0: 2, 1: 0})
        sources = [header(record, "source") for record in await read_all(topics, ["deliveries"])]
        assert len(sources) == 4
        assert sources[:2] == sources[2:]
        assert await _told(topics) == [b"1", b"2"]


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_batch_held_longer_than_the_session_is_thrown_away(topics: Cluster, keeps: bool) -> None:
    """A process that was frozen wakes in the middle of a batch; another may have handled it under another view."""
    clock = ManualClock()

    class Frozen(Matching):
        def handle(self, records: Sequence[Received], position: int) -> Handled:
            handled = super().handle(records, position)
            if self.calls.count(f"handle {records[0].partition}") == 1:
                clock.advance(limits.BATCH_HELD_S_MAX + 1)
            return handled

    told = Recorder()
    more: dict[str, Any] = {"held_s_max": float("inf")} if keeps else {}
    async with producing(topics) as producer, viewing(topics) as view:
        await producer.write(events(b"1"))
        made = processor(topics, view, producer, handler=Frozen(), clock=clock, observer=told, **more)
        async with running(made):
            await at(topics, {0: 1, 1: 0})
        assert values(await read_all(topics, ["deliveries"])) == [b"1"]
        assert made._handler.handled == ([b"1"] if keeps else [b"1", b"1"])
        assert any("thrown away" in reason for _, reason in told.restarts) != keeps


async def test_after_a_failed_write_the_life_begins_again_from_the_committed_position(topics: Cluster) -> None:
    class Failing(PlainProducer):
        failures = 3

        async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
            if self.failures and any(output.topic == "deliveries" for output in outputs):
                self.failures -= 1
                raise Retry("not now, says the test")
            return await super().write(outputs)

    async with producing(topics, Failing) as failing, viewing(topics) as view, producing(topics) as producer:
        await producer.write(events(b"1", b"2"))
        made = processor(topics, view, failing)
        async with running(made):
            await at(topics, {0: 2, 1: 0})
        assert values(await read_all(topics, ["deliveries"])) == [b"1", b"2"]
        assert made._handler.calls.count("restore 0") == 4
        assert made._handler.forgotten.count(0) == 3


async def test_two_members_share_the_partitions_and_nothing_is_lost_when_one_leaves(topics: Cluster) -> None:
    async with producing(topics) as producer, viewing(topics) as view:
        first, second = processor(topics, view, producer), processor(topics, view, producer)
        async with running(first):
            await producer.write(events(b"1") + events(b"2", partition=1))
            await at(topics, {0: 1, 1: 1})
            async with running(second):
                await eventually(lambda: len(first._owned) == len(second._owned) == 1, timeout_s=20)
                await producer.write(events(b"3") + events(b"4", partition=1))
                await at(topics, {0: 2, 1: 2})
            await eventually(lambda: len(first._owned) == 2, timeout_s=20)
            await producer.write(events(b"5") + events(b"6", partition=1))
            await at(topics, {0: 3, 1: 3})
        assert sorted(values(await read_all(topics, ["deliveries"]))) == [b"1", b"2", b"3", b"4", b"5", b"6"]
        assert second._handler.restored
