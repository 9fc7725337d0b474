"""Closing days on a real broker and a real Postgres, with days of two seconds."""

import asyncio
import math
from itertools import pairwise

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from millrace_core import receipts
from millrace_core.clock import SystemClock
from millrace_core.messages import ReceiptRoot, encode
from millrace_core.receipts import FACT_TOPICS
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_store.migrations import migrate
from tests.integration.test_projector_rebuilding import rebuilt
from tests.support import projecting, story
from tests.support.infra import execute
from tests.support.processing import producing
from tests.support.projecting import projector, until_projected
from tests.support.receipts import (
    DAY_MS,
    GRACE_S,
    Died,
    Dying,
    Hanging,
    Told,
    closed_days,
    closing,
    closing_days,
    facts_of_days,
    leaves,
    roots,
)
from tests.support.waiting import eventually

TELLER = story.Teller()
FACTS_OF_ONE = 9


async def begun(cluster: Cluster, database: str) -> None:
    await create_topics(cluster)
    await migrate(database)


async def tell(cluster: Cluster, *events: int) -> None:
    """Append these events' whole stories, which may fall on two days."""
    await story.append(cluster, [record for n in events for record in TELLER.whole(n)])


async def proven(cluster: Cluster) -> dict[int, int]:
    """How many leaves each day should have, by the log."""
    return {day: len(facts) for day, facts in (await facts_of_days(cluster)).items()}


async def gives_space_back(database: str) -> bool:
    """Whether no session holds a day's facts."""
    connection = await asyncpg.connect(database)
    try:
        return not await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'day_facts'")
    finally:
        await connection.close()


async def day_over(told: Told, facts: int) -> None:
    """Wait until so many facts are in closed days."""
    await eventually(lambda: sum(day[2] for day in told.days) >= facts, timeout_s=20.0, what="the days are closed")


async def test_days_are_closed_and_their_roots_chain(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database) as told:
        await tell(cluster, 0, 1, 2)
        await day_over(told, 3 * FACTS_OF_ONE)
        await tell(cluster, 3)
        await day_over(told, 4 * FACTS_OF_ONE)
        await until_projected(cluster, database)
        await eventually(lambda: gives_space_back(database), what="sorted facts are dropped")
    found = await roots(cluster)
    assert len(found) >= 2
    assert await proven(cluster) == {root.day: root.leaves for root in found}
    assert [(day, facts) for day, _, facts in told.days if facts] == [(root.day, root.leaves) for root in found]
    previous = receipts.GENESIS
    for root in found:
        assert root.previous == previous
        previous = receipts.chain_of(previous, story.ACCOUNT_ID, root.day, root.leaves, root.root)
        assert root.chain == previous
    rows = await projecting.tables(database)
    stored = [(row[2], row[3], row[6]) for row in rows["receipt_roots"]]
    assert stored == [(root.leaves, root.root, None) for root in found]
    assert len(rows["receipt_seeds"]) == 1
    assert sum(row[2] for row in rows["receipt_days"]) == 4 * FACTS_OF_ONE  # type: ignore[misc]
    assert told.contradictions == []


async def test_a_repeated_fact_is_one_leaf(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database) as told:
        await tell(cluster, 0, 0)
        await day_over(told, FACTS_OF_ONE)
    assert await proven(cluster) == {root.day: root.leaves for root in await roots(cluster)}
    assert sum((await proven(cluster)).values()) < 2 * FACTS_OF_ONE


async def test_leaves_are_the_facts_of_the_day_in_the_order_of_their_ids(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database) as told:
        await tell(cluster, 0, 1)
        await story.append(cluster, [Output("run-facts", b"x", b"garbage")])
        await day_over(told, 2 * FACTS_OF_ONE)
    seed = (await projecting.tables(database))["receipt_seeds"][0][1]
    assert isinstance(seed, bytes)
    chunks = {chunk.day: chunk for chunk in await leaves(cluster)}
    days = await facts_of_days(cluster)
    assert list(days) == sorted(chunks)
    for day, facts in days.items():
        chunk = chunks[day]
        assert chunk.entries == b"".join(receipts.entry_of(seed, facts[id]) for id in sorted(facts))
        assert chunk.root == receipts.root_of(receipts.leaves_of(story.ACCOUNT_ID, chunk.entries))


async def test_what_was_aborted_is_no_fact(cluster: Cluster, database: str) -> None:
    """Markers and aborted records lie between the facts and behind the last of them."""
    await begun(cluster, database)
    writer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.namespace}-closing")
    await writer.start()
    try:
        async with projector(cluster, database), closing_days(cluster, database) as told:
            for n, is_kept in ((0, True), (1, False), (2, True), (3, False)):
                await writer.begin_transaction()
                for one in TELLER.run_facts(n):
                    await writer.send_and_wait(cluster.topic(one.topic), one.value, key=one.key, partition=n % 2)
                await (writer.commit_transaction() if is_kept else writer.abort_transaction())
            await day_over(told, 2 * len(TELLER.run_facts(0)))
    finally:
        await writer.stop()
    found = await proven(cluster)
    assert sum(found.values()) == 2 * len(TELLER.run_facts(0))
    assert found == {root.day: root.leaves for root in await roots(cluster)}


@pytest.mark.parametrize("dies_at", [b'"entries"', b'"receipt":"root"', b'"receipt":"closed"'])
async def test_a_crash_half_way_leaves_the_same_roots(cluster: Cluster, database: str, dies_at: bytes) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), producing(cluster) as producer:
        await tell(cluster, 0, 1)
        with pytest.raises(Died):
            await closing(cluster, database, Dying(producer, dies_at), Told()).run(asyncio.Event())
        before = await roots(cluster)
        async with closing_days(cluster, database) as told:
            await day_over(told, 2 * FACTS_OF_ONE)
            await until_projected(cluster, database)
    after = await roots(cluster)
    assert len(before) == (dies_at == b'"receipt":"closed"')
    assert await proven(cluster) == {root.day: root.leaves for root in after}
    assert {root.chain for root in before} <= {root.chain for root in after}
    assert len(after) == len({root.chain for root in after}) + len(before)
    assert told.contradictions == []
    assert len((await projecting.tables(database))["receipt_roots"]) == len({root.day for root in after})


async def test_a_first_day_that_is_not_closed_gets_old_all_the_same(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    stop = asyncio.Event()
    made = closing(cluster, database, Hanging(), Told())
    assert math.isnan(made.age_s())
    async with projector(cluster, database), asyncio.TaskGroup() as group:
        group.create_task(made.run(stop))
        await tell(cluster, 0)
        await eventually(lambda: made.age_s() > DAY_MS / 1000, timeout_s=20.0)
        stop.set()


async def test_told_to_stop_it_leaves_the_day_it_is_at(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    stop, log = asyncio.Event(), Hanging()
    async with projector(cluster, database):
        await tell(cluster, 0)
        async with asyncio.timeout(30.0), asyncio.TaskGroup() as group:
            group.create_task(closing(cluster, database, log, Told()).run(stop))
            await log.is_asked.wait()
            stop.set()
    assert await roots(cluster) == []


async def test_two_who_close_write_one_chain(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with (
        projector(cluster, database),
        closing_days(cluster, database) as one,
        closing_days(cluster, database) as other,
    ):
        await tell(cluster, 0)
        await eventually(lambda: one.days or other.days, timeout_s=20.0)
        await tell(cluster, 1)
        await eventually(lambda: sum(day[2] for day in (*one.days, *other.days)) >= 2 * FACTS_OF_ONE, timeout_s=20.0)
    assert not (one.days and other.days), "only who holds the lock closes"
    found = await roots(cluster)
    assert [(root.day, root.leaves) for root in found] == list((await proven(cluster)).items())


async def test_a_second_root_of_a_day_is_seen_and_changes_nothing(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database) as told:
        await tell(cluster, 0)
        await day_over(told, FACTS_OF_ONE)
        root = (await roots(cluster))[0]
        chain = receipts.chain_of(root.previous, root.account, root.day, root.leaves, b"f" * 32)
        forged = ReceiptRoot(
            account=root.account, day=root.day, leaves=root.leaves, root=b"f" * 32, previous=root.previous, chain=chain
        )
        await story.append(cluster, [Output("receipt-roots", root.account.encode(), encode(forged))])
        await eventually(lambda: told.contradictions == [(root.account, root.day)], timeout_s=20.0)
    row = (await projecting.tables(database))["receipt_roots"][0]
    assert (row[3], row[5], row[6]) == (root.root, root.chain, chain)


async def test_a_rebuild_gives_the_same_receipts(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database) as told:
        await tell(cluster, 0, 1)
        await day_over(told, 2 * FACTS_OF_ONE)
        await until_projected(cluster, database)
    async with projector(cluster, database):
        await until_projected(cluster, database)
    before = await projecting.tables(database)
    await execute(database, "UPDATE read.receipt_roots SET leaves = 99; DELETE FROM read.receipt_leaves")
    await rebuilt(cluster, database)
    assert await projecting.tables(database) == before
    assert before["receipt_leaves"]


class Ahead(SystemClock):
    """A clock that is an hour ahead of the broker's."""

    def __init__(self) -> None:
        super().__init__(3_600_000)


async def test_a_clock_that_is_ahead_closes_no_day_that_is_not_over(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database), closing_days(cluster, database, clock=Ahead()) as told:
        await tell(cluster, 0)
        await day_over(told, FACTS_OF_ONE)
    days = await closed_days(cluster)
    assert days
    assert all(at >= day + DAY_MS + GRACE_S * 1000 for day, at in days)
    assert await proven(cluster) == {root.day: root.leaves for root in await roots(cluster)}


async def test_a_day_whose_facts_the_log_has_lost_is_passed_over_and_told(cluster: Cluster, database: str) -> None:
    await begun(cluster, database)
    async with projector(cluster, database):
        async with closing_days(cluster, database) as told:
            await tell(cluster, 0)
            await day_over(told, FACTS_OF_ONE)
        await tell(cluster, 1)  # nobody closes the day of these
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            parts = [TopicPartition(cluster.topic(topic), number) for topic in FACT_TOPICS for number in range(3)]
            await admin.delete_records({part: RecordsToDelete(before_offset=-1) for part in parts})
        finally:
            await admin.close()
        async with closing_days(cluster, database) as later:
            await eventually(lambda: later.losses, timeout_s=20.0)
            await tell(cluster, 2)
            await tell(cluster, 3)
            await eventually(lambda: len(later.days) >= 1, timeout_s=20.0)
    found = await roots(cluster)
    assert later.losses[0] == told.days[-1][0] + DAY_MS
    assert later.days[0][0] > later.losses[0]
    assert later.losses[0] not in {root.day for root in found}
    assert all(root.previous == before.chain for before, root in pairwise(found))
