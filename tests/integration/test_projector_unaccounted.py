"""The gauge of what is unaccounted: 0 for a whole story, and one for each hole in it."""

import asyncio
import math
from functools import partial

import asyncpg
import pytest
import structlog

from millrace_core.clock import SystemClock
from millrace_core.dead_letters import dead_letter
from millrace_core.messages import EventFact
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_projector.reconciler import Balance, Reconciler, settled
from millrace_projector.rows import BUCKET_OFFSETS
from millrace_store.migrations import migrate
from millrace_store.pool import connect
from tests.support import story
from tests.support.groups import everyone_has_read
from tests.support.projecting import projector, until_projected
from tests.support.waiting import eventually


async def balance(cluster: Cluster, database: str, records: list[Output]) -> Balance:
    """The second count of what these records came to: a run counts as stuck from then on."""
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, records)
    await everyone_has_read(cluster)
    async with projector(cluster, database):
        await until_projected(cluster, database)
    found: list[Balance] = []
    stop = asyncio.Event()
    reconciler = Reconciler(
        connect=partial(connect, database, name="test"),
        settled=partial(settled, cluster),
        found=found.append,
        clock=SystemClock(),
        log=structlog.get_logger(),
        every_s=0.05,
    )
    assert reconciler.age_s() == math.inf
    async with asyncio.TaskGroup() as group:
        group.create_task(reconciler.run(stop))
        await eventually(lambda: len(found) > 1)
        stop.set()
        assert reconciler.age_s() < 60.0
    assert len(found[1].undecided) == 3, "a partition that owes nothing says 0"
    assert set(found[1].oldest_age_s) == {"matcher", "orchestrator", "executor", "scheduler", "dispatcher"}
    return found[1]


def teller() -> story.Teller:
    return story.Teller(start_ms=SystemClock().now_ms() - 300_000)


@pytest.mark.parametrize(
    ("topic", "left_out", "undecided", "never_asked", "stuck"),
    [
        (None, b"", 0, 0, 0),
        ("event-facts", b"", 2, 0, 0),
        ("deliveries", b"", 0, 2, 0),
        ("run-commands", b"", 0, 2, 0),
        ("run-facts", b"run.ended", 0, 0, 2),
    ],
)
async def test_what_is_missing_is_counted(
    cluster: Cluster, database: str, topic: str | None, left_out: bytes, undecided: int, never_asked: int, stuck: int
) -> None:
    tell = teller()
    told = [record for n in range(6) for record in tell.whole(n)]
    torn = [record for n in (6, 7) for record in tell.whole(n)]
    told += [record for record in torn if record.topic != topic or left_out not in (record.value or b"")]
    found = await balance(cluster, database, told)
    assert (sum(found.undecided.values()), found.never_asked, found.stuck) == (undecided, never_asked, stuck)
    assert found.unaccounted == undecided + never_asked + stuck
    assert (found.oldest_age_s["matcher"] > 60.0) == bool(undecided)


async def test_a_record_that_makes_no_row_must_have_an_outcome_too(cluster: Cluster, database: str) -> None:
    """A repeat of a uniqueKey is no event of its own, and what is no event has nothing but its dead letter."""
    tell = teller()
    repeat, lost = tell.event(1), tell.event(2)
    duplicate = EventFact(
        event=tell.event_id(1), account=story.ACCOUNT_ID, outcome="duplicate", at=1, duplicate_of=tell.event_id(0)
    )
    garbage = Output("events", b"garbage", b"\xff", (), tell.event_id(3).encode())
    [read] = [one for one in story.received([tell.event(0), repeat, lost, garbage]) if one.value == b"\xff"]
    found = await balance(
        cluster,
        database,
        [
            *tell.whole(0),
            repeat,
            story.output("event-facts", tell.event_id(1), duplicate, source=tell.source(1)),
            story.output("event-facts", tell.event_id(1), duplicate, source=tell.source(1)),
            lost,
            garbage,
            dead_letter(read, "not a valid Event"),
        ],
    )
    assert found.unaccounted == sum(found.undecided.values()) == 1, "only the record nobody spoke of"


async def test_a_bucket_that_is_full_stays_full(cluster: Cluster, database: str) -> None:
    """The book holds over many buckets, the last of them begun; one outcome lost in the midst is found."""
    tell, count = story.Teller(partitions=1, start_ms=SystemClock().now_ms() - 300_000), 2 * BUCKET_OFFSETS + 10
    lost = BUCKET_OFFSETS + 17
    await create_topics(cluster, partitions=1)
    events = [tell.event(n) for n in range(count)]
    facts = [tell.matched(n, runs=False, deliveries=False) for n in range(count) if n != lost]
    await migrate(database)
    await story.append(cluster, [*events, *facts], partitions=1)
    await everyone_has_read(cluster)
    async with projector(cluster, database):
        await until_projected(cluster, database)
        asked = await settled(cluster)
    assert (asked.starts, asked.until) == ({0: 0}, {0: count})
    db = await asyncpg.connect(database)
    try:
        book = await db.fetch("SELECT bucket, bit_count(decided) AS decided FROM read.account_book ORDER BY bucket")
        assert [tuple(row) for row in book] == [(0, None), (1, BUCKET_OFFSETS - 1), (2, 10)]
        told_again = story.output(
            "event-facts",
            tell.event_id(0),
            EventFact(event=tell.event_id(0), account=story.ACCOUNT_ID, outcome="unmatched", at=1),
            source="events:0:5",
        )
        await story.append(cluster, [told_again], partitions=1)
        async with projector(cluster, database):
            await until_projected(cluster, database)
        assert await db.fetchval("SELECT decided IS NULL FROM read.account_book WHERE bucket = 0")
    finally:
        await db.close()
    found: list[Balance] = []
    reconciler = Reconciler(
        connect=partial(connect, database, name="test"),
        settled=partial(settled, cluster),
        found=found.append,
        clock=SystemClock(),
        log=structlog.get_logger(),
        every_s=0.05,
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(reconciler.run(stop))
        await eventually(lambda: found)
        stop.set()
    assert found[0].undecided == {0: 1}
