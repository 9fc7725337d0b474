"""The days of the read models on a real broker and a real Postgres: made ahead, held by what is not over, dropped
whole, and not missed by a rebuild or by `millrace verify`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
import structlog

from millrace_cli.verify import verify
from millrace_core import limits
from millrace_core.clock import ManualClock, SystemClock
from millrace_core.ids import DAY_MS
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_projector.keeping import Keeper, Seen
from millrace_projector.rebuilding import rebuild
from millrace_store import days
from millrace_store.days import DATED
from millrace_store.migrations import migrate
from millrace_store.pool import Connection, connect
from millrace_store.projection import Projection
from tests.support import projecting, story
from tests.support.groups import everyone_has_read
from tests.support.infra import execute
from tests.support.projecting import projector, until_projected

NOW_MS = SystemClock().now_ms()
TODAY = NOW_MS // DAY_MS
OLD = TODAY - limits.RETENTION_DAYS_DEFAULT - 1
"""The youngest day that no account is shown."""

ROW = "INSERT INTO read.event_matches (event, kind, child, account) VALUES ($1, 'run', $1, 'acc_1')"


class Told:
    def __init__(self) -> None:
        self.days: Seen | None = None
        self.failures: list[str] = []

    def seen(self, days: Seen) -> None:
        self.days = days


@asynccontextmanager
async def keeper(
    dsn: str, *, is_behind: bool = False, now_ms: int = NOW_MS
) -> AsyncIterator[tuple[Keeper, Told, Connection]]:
    """A keeper whose turns the test takes, over this connection."""
    told, connection = Told(), await connect(dsn, name="test keeper")

    async def no_other() -> Connection:
        raise AssertionError("the test gives the connection")

    made = Keeper(
        connect=no_other,
        is_behind=lambda: is_behind,
        seen=told.seen,
        failed=told.failures.append,
        clock=ManualClock(now_ms),
        log=structlog.get_logger(),
    )
    try:
        yield made, told, connection
    finally:
        await connection.close()


def told_on(*days: int) -> list[Output]:
    """Three whole stories on each of these days."""
    counts: dict[int, int] = {}
    tellers = [story.Teller(start_ms=day * DAY_MS + 1_000, counts=counts) for day in days]
    return [record for teller in tellers for n in range(3) for record in teller.whole(n)]


async def projected(cluster: Cluster, database: str, records: list[Output]) -> None:
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, records)
    await everyone_has_read(cluster)
    async with projector(cluster, database):
        await until_projected(cluster, database)


async def rebuilt(cluster: Cluster, database: str, *, drop: bool) -> None:
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        await rebuild(cluster, database, letters=producer, drop=drop)
    finally:
        await producer.stop()


async def there(connection: Connection) -> dict[int, int]:
    """How many partitions each day has."""
    return {day: len(tables) for day, tables in (await days.look(connection)).attached.items()}


async def test_days_are_made_before_they_begin(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (one, told, connection):
        await one.turn(connection)
        wanted = {TODAY + n: len(DATED) for n in range(limits.PARTITION_DAYS_AHEAD + 1)}
        assert await there(connection) == wanted
        assert told.days == Seen(1, limits.PARTITION_DAYS_AHEAD, 0, NOW_MS / 1000 - TODAY * DAY_MS / 1000)
        async with keeper(database, now_ms=NOW_MS + 5 * DAY_MS) as (other, seen, second):
            await other.turn(second)
            assert await there(second) == wanted, "one keeper at a time"
            assert seen.days is not None
            assert seen.days.ahead == 0, "and every one says what it sees"


async def test_a_keeper_that_was_away_for_weeks_makes_up_for_it(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (late, told, connection):
        await days.make(connection, [TODAY - 21, TODAY - 20, TODAY - 19])
        await late.turn(connection)
        assert sorted(await there(connection)) == [TODAY, TODAY + 1, TODAY + 2]
        assert told.days is not None
        assert told.days.due == 0


@pytest.mark.parametrize("drop", [False, True], ids=["keeping what is older", "from the log alone"])
async def test_a_day_goes_whole_and_nothing_brings_it_back(cluster: Cluster, database: str, drop: bool) -> None:
    await projected(cluster, database, told_on(OLD, OLD + 1))
    before = await projecting.tables(database)
    async with keeper(database) as (one, told, connection):
        await one.turn(connection)
        assert OLD not in await there(connection)
        assert told.failures == []
    left = await projecting.tables(database)
    assert left["account_book"] == before.pop("account_book"), "an outcome was had, whatever is shown of it"
    assert {name: len(left[name]) for name in before} == {name: len(rows) // 2 for name, rows in before.items()}
    found = await verify(cluster, database)
    assert found.holds, found.lines()
    await rebuilt(cluster, database, drop=drop)
    assert await projecting.tables(database) == left
    found = await verify(cluster, database)
    assert found.holds, found.lines()


async def test_a_late_word_of_a_dropped_day_changes_nothing(cluster: Cluster, database: str) -> None:
    await projected(cluster, database, told_on(OLD, OLD + 1))
    async with keeper(database) as (one, _, connection):
        await one.turn(connection)
    left = await projecting.tables(database)
    teller = story.Teller(start_ms=OLD * DAY_MS + 1_000)
    await story.append(cluster, [teller.attempted(0, attempt=3), *teller.run_facts(1)])
    async with projector(cluster, database):
        await until_projected(cluster, database)
    assert await projecting.tables(database) == left
    found = await verify(cluster, database)
    assert not found.differences, found.lines()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE read.runs SET status = 'running'",
        "UPDATE read.deliveries SET status = 'retrying'",
        "DELETE FROM read.event_outcomes",
    ],
    ids=["a run", "a delivery", "an event"],
)
async def test_what_is_not_over_holds_its_day(cluster: Cluster, database: str, statement: str) -> None:
    await projected(cluster, database, told_on(OLD))
    await execute(database, statement)
    async with keeper(database) as (one, told, connection):
        await one.turn(connection)
        assert (await there(connection))[OLD] == len(DATED)
        assert told.days is not None
        assert told.days.due == 1
        await execute(database, "UPDATE read.runs SET status = 'completed'")
        await execute(database, "UPDATE read.deliveries SET status = 'failed'")
        await execute(database, "DELETE FROM read.events")
        await one.turn(connection)
        assert OLD not in await there(connection)


async def test_the_longest_retention_of_any_account_counts(database: str) -> None:
    await migrate(database)
    for account, kept in (("a", 5), ("b", 9)):
        await execute(
            database,
            "INSERT INTO control.accounts (id, version, name, plan, created_at, retention_days) "
            f"VALUES ('{account}', 1, '{account}', 'free', now(), {kept})",
        )
    async with keeper(database) as (one, _, connection):
        await days.make(connection, range(TODAY - 12, TODAY))
        await one.turn(connection)
        await one.turn(connection)
        assert min(await there(connection)) == TODAY - 9


async def test_nothing_goes_while_records_wait_to_be_projected(database: str) -> None:
    await migrate(database)
    async with keeper(database, is_behind=True) as (one, _, connection):
        await days.make(connection, [OLD])
        await one.turn(connection)
        assert OLD in await there(connection)


async def test_a_reader_puts_a_drop_off_and_is_not_waited_for(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (one, told, connection):
        await one.turn(connection)
        await days.make(connection, [OLD])
        reader = await connect(database, name="reader")
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM read.events")
            async with asyncio.timeout(5):
                await one.turn(connection)
            assert told.failures == ["dropped"]
            assert (await days.look(connection)).attached[OLD] >= {"events"}
        await reader.close()
        await one.turn(connection)
        assert OLD not in await there(connection)


async def test_a_crash_between_two_steps_of_a_drop_leaves_nothing(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (one, _, connection):
        await days.make(connection, [OLD])
        name = f"events_d{days.name_of(OLD).replace('-', '')}"
        await execute(database, f"ALTER TABLE read.events DETACH PARTITION read.{name}")
        bounds = f"'{days.first_id(OLD)}', '{days.first_id(OLD + 1)}'"
        await execute(database, f"INSERT INTO control.dropped_days VALUES ('{days.name_of(OLD)}', {bounds})")
        await one.turn(connection)
        found = await days.look(connection)
        assert OLD not in found.attached
        assert not found.detached


async def test_rows_that_came_before_their_partition_move_into_it(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (one, _, connection):
        strays = {TODAY: days.first_id(TODAY), TODAY + 9: days.first_id(TODAY + 9), OLD: days.first_id(OLD)}
        for id in strays.values():
            await connection.execute(ROW, id)
        await one.turn(connection)
        rows = await connection.fetch(
            "SELECT event, tableoid::regclass::text AS part FROM read.event_matches ORDER BY event"
        )
        name = f"read.event_matches_d{days.name_of(TODAY).replace('-', '')}"
        assert [(row["event"].hex, row["part"]) for row in rows] == [
            (strays[TODAY], name),
            (strays[TODAY + 9], "read.event_matches_default"),
        ], "one of a day to come waits for it, one of a day that is gone goes"


async def test_an_id_of_no_day_takes_no_projector_down(database: str) -> None:
    await migrate(database)
    async with keeper(database) as (one, _, connection):
        for id in ("0" * 32, "f" * 32):
            await Projection().ensure_days(connection, [days.day_of(id)], now_ms=NOW_MS)
            await connection.execute(ROW, id)
        await one.turn(connection)
        await one.turn(connection)
        left = await connection.fetch("SELECT event FROM read.event_matches")
        assert [row["event"].hex for row in left] == ["f" * 32], "of a day that never comes it stays"


async def test_a_day_that_cannot_be_made_takes_no_projector_down(database: str) -> None:
    await migrate(database)
    connection, reader = await connect(database, name="test"), await asyncpg.connect(database)
    clock, projection = ManualClock(NOW_MS), Projection()
    async with reader.transaction():
        await reader.fetch("SELECT FROM read.event_matches")
        await projection.ensure_days(connection, [TODAY], now_ms=clock.now_ms())
        await connection.execute(ROW, days.first_id(TODAY))
    async with keeper(database) as (one, _, second):
        await one.turn(second)
        assert (await there(second))[TODAY] == len(DATED)
        assert await second.fetchval("SELECT count(*) FROM read.event_matches_default") == 0
    await reader.close()
    await connection.close()
