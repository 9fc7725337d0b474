"""The control view on a real broker: it never goes back, it passes markers, and it is not fooled by old answers."""

import asyncio

import pytest
from aiokafka import TopicPartition

from millrace_core.clock import ManualClock, SystemClock
from millrace_core.errors import Retry, Stale
from millrace_core.record import Output
from millrace_kafka.admin import Admin, create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.transaction import Transactions
from tests.support.processing import Recorder, running, viewing
from tests.support.waiting import eventually


class Follower:
    def __init__(self) -> None:
        self.known: dict[tuple[str, str], bytes | None] = {}
        self.applied = 0

    def apply(self, account: str, id: str, value: bytes | None) -> None:
        if value == b"damaged":
            raise ValueError("damaged, says the test")
        self.known[account, id] = value
        self.applied += 1


@pytest.fixture
async def topics(cluster: Cluster) -> Cluster:
    await create_topics(cluster, partitions=1)
    return cluster


@pytest.fixture
async def writer(topics: Cluster) -> ControlWriter:
    made = ControlWriter(topics)
    await made.start()
    return made


async def test_what_is_written_is_known_once_the_position_is_passed(topics: Cluster, writer: ControlWriter) -> None:
    keys, plans = Follower(), Follower()
    await writer.write([("key", "a", "k1", 1, b"one"), ("plan", "a", "p1", 1, b"plan")])
    async with viewing(topics, key=keys) as view:
        assert keys.known == {("a", "k1"): b"one"}
        await view.passed(await writer.write([("key", "a", "k1", 2, b"two"), ("key", "b", "k1", 1, b"other")]))
        assert keys.known == {("a", "k1"): b"two", ("b", "k1"): b"other"}
        await view.passed(await writer.write([("key", "a", "k1", 3, None)]))
        assert keys.known["a", "k1"] is None
    assert plans.known == {}
    await writer.stop()


async def test_a_lower_version_is_ignored_after_a_deletion_too(topics: Cluster, writer: ControlWriter) -> None:
    keys = Follower()
    async with viewing(topics, key=keys) as view:
        await writer.write([("key", "a", "k", 5, b"five"), ("key", "a", "k", 4, b"four")])
        await view.passed(await writer.write([("key", "a", "gone", 7, None), ("key", "a", "gone", 6, b"six")]))
        assert keys.known == {("a", "k"): b"five", ("a", "gone"): None}
        # Republished, the same version is taken: that is how a damaged topic is mended.
        await view.passed(await writer.write([("key", "a", "k", 5, b"five again")]))
        assert keys.known["a", "k"] == b"five again"
    await writer.stop()


async def test_the_end_is_passed_though_the_log_ends_with_markers(topics: Cluster, writer: ControlWriter) -> None:
    part = TopicPartition(topics.topic("control"), 0)
    async with viewing(topics, key=Follower()) as view, Admin(topics) as admin:
        for version in range(5):
            written = await writer.write([("key", "a", "k", version, b"v")])

            async def marked(least: int = written) -> bool:
                return (await admin.ends([part], read_committed=True))[part] > least

            await eventually(marked)
            end = await view.end()
            assert end == written + 1  # the marker takes an offset of its own
            await view.passed(end, timeout_s=2)
            assert view.position == end
    await writer.stop()


async def test_an_aborted_transaction_hides_nothing_and_its_marker_is_passed(topics: Cluster) -> None:
    abandoned = Transactions(topics, transactional_id=topics.transactional_id("relay"), group="relay")
    await abandoned.start()
    await abandoned._client.begin_transaction()
    output = Output(
        "control", b"key/a/k", b"never", (("kind", b"key"), ("account", b"a"), ("id", b"k"), ("version", b"9"))
    )
    sent = await abandoned._send([abandoned.place(output)])
    await asyncio.wait(list(sent.values()))
    keys = Follower()
    async with viewing(topics, key=keys) as view:
        writer = ControlWriter(topics)
        await writer.start()  # fences, which ends the open transaction
        await view.passed(await writer.write([("key", "a", "k", 1, b"real")]), timeout_s=5)
        assert keys.known == {("a", "k"): b"real"}
        await writer.stop()
    await abandoned.discard()


async def test_a_question_under_way_is_not_shared(topics: Cluster, writer: ControlWriter) -> None:
    """Its answer may be older than the call: what came into force between the two would be missed."""
    async with viewing(topics) as view:
        gate, asked = asyncio.Event(), 0
        ends = view._asker.ends

        async def slow(parts: object) -> dict[tuple[str, int], int]:
            nonlocal asked
            asked += 1
            found = await ends([("control", 0)])
            await gate.wait()
            return found

        view._asker.ends = slow  # type: ignore[method-assign]
        first = asyncio.ensure_future(view.end())
        await eventually(lambda: asked >= 1)
        under_way = asked
        position = await writer.write([("key", "a", "k", 1, b"v")])
        await view.passed(position)
        later = [asyncio.ensure_future(view.end()) for _ in range(10)]
        await asyncio.sleep(0)
        gate.set()
        await first
        assert {await call >= position for call in later} == {True}
        assert asked <= under_way + 2  # one for the ten of them, one perhaps of the view's own
    await writer.stop()


async def test_the_end_is_told_while_the_view_is_in_its_long_poll(topics: Cluster) -> None:
    loop = asyncio.get_running_loop()
    async with viewing(topics) as view:
        await view.end()
        took = []
        for _ in range(20):
            began = loop.time()
            await view.end()
            took.append(loop.time() - began)
        # On the view's own connection each would wait for the poll, 500 ms.
        assert sorted(took)[10] < 0.1


async def test_a_view_is_fresh_while_it_is_proven_to_be_at_the_end(topics: Cluster) -> None:
    clock = ManualClock()
    view = ControlView(topics, followers={}, clock=clock)
    assert view.fresh_age_s() == float("inf")
    assert view.ready() == "the control view is not loaded"
    await view.start()
    assert view.ready() is None
    clock.advance(2)
    assert "2.0 s old" in (view.ready() or "")
    async with running(view):
        await eventually(lambda: view.fresh_age_s() < 0.5)
    with pytest.raises(Retry, match="asked for"):
        await view.passed(view.position + 1_000, timeout_s=0.05)


async def test_records_that_cannot_be_read_count_as_nothing_or_as_deleted(topics: Cluster) -> None:
    keys, told = Follower(), Recorder()
    raw = Transactions(topics, transactional_id=topics.transactional_id("relay"), group="relay")
    await raw.start()
    head = (("kind", b"key"), ("account", b"a"), ("id", b"k"))
    bad = [
        Output("control", b"x", b"v"),
        Output("control", b"x", b"v", head),
        Output("control", b"x", b"v", (*head, ("version", b"one"))),
        Output("control", b"key/a/k", b"damaged", (*head, ("version", b"1"))),
    ]
    await raw.commit([raw.place(output) for output in bad], {})
    await raw.discard()
    view = ControlView(topics, followers={"key": keys}, clock=SystemClock(), observer=told)
    await view.start()
    async with running(view):
        assert keys.known == {("a", "k"): None}
        assert len(told.dead_letters) == 3


async def test_an_older_writer_is_fenced(topics: Cluster, writer: ControlWriter) -> None:
    keys = Follower()
    newer = ControlWriter(topics)
    async with viewing(topics, key=keys) as view:
        await writer.write([("key", "a", "k", 1, b"old")])
        await newer.start()
        await view.passed(await newer.write([("key", "a", "k", 2, b"new")]))
        with pytest.raises(Stale):
            await writer.write([("key", "a", "k", 1, b"old")])
        with pytest.raises(Retry):
            await writer.write([("key", "a", "k", 1, b"old")])
        assert keys.known == {("a", "k"): b"new"}
    await newer.stop()
    await writer.stop()
