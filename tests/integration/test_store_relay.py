"""Outbox and relay on a real Postgres, with a log in memory: what is committed is published, once, in order.

Not here: the fence (tests/fault/test_relay_fence.py), and the real log.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_store import outbox
from millrace_store.migrations import migrate
from millrace_store.outbox import Entry
from millrace_store.pool import AWAY, connect, open_pool
from millrace_store.relay import Relay
from tests.support.waiting import eventually


class MemoryLog:
    """Keeps what is written; `fails` so many times before it writes."""

    def __init__(self, fails: int = 0) -> None:
        self.entries: list[Entry] = []
        self.fails = fails
        self.starts = 0

    async def start(self) -> None:
        self.starts += 1

    async def write(self, entries: Sequence[Entry]) -> int:
        if self.fails:
            self.fails -= 1
            raise Retry("the broker is away")
        self.entries += entries
        return len(self.entries)

    async def stop(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def running(database: str, log: MemoryLog, *, name: str = "relay") -> AsyncIterator[Relay]:
    relay = Relay(database, writer=lambda: log, name=name)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.run(stop))
        try:
            yield relay
        finally:
            stop.set()


@pytest.fixture
async def migrated(database: str) -> str:
    await migrate(database)
    return database


def entry(id: str, version: int) -> Entry:
    return Entry("subscription", "acc_1", id, version, b"{}")


async def test_what_is_committed_is_published_in_order(migrated: str) -> None:
    log = MemoryLog()
    connection = await asyncpg.connect(migrated)
    async with running(migrated, log):
        for version in range(1, 6):
            async with connection.transaction():
                await outbox.append(connection, entry("a", version))
                await outbox.append(connection, entry("b", version))
        await eventually(lambda: len(log.entries) == 10)
        assert [one.version for one in log.entries if one.id == "a"] == [1, 2, 3, 4, 5]

        async def none_waits() -> bool:
            return await outbox.count_unpublished(connection) == 0

        await eventually(none_waits)
    assert await connection.fetchval("SELECT max(published_position) FROM control.control_outbox") == 10
    await connection.close()


async def test_an_id_that_commits_late_is_published_all_the_same(migrated: str) -> None:
    """Ids are given before commits: "greater than the last" would leave the late one out for ever."""
    log = MemoryLog()
    late, early = await asyncpg.connect(migrated), await asyncpg.connect(migrated)
    async with running(migrated, log):
        transaction = late.transaction()
        await transaction.start()
        await outbox.append(late, entry("late", 1))
        await outbox.append(early, entry("early", 1))
        await eventually(lambda: [one.id for one in log.entries] == ["early"])
        await transaction.commit()
        await eventually(lambda: [one.id for one in log.entries] == ["early", "late"])
    await late.close()
    await early.close()


async def test_what_is_rolled_back_is_never_published(migrated: str) -> None:
    log = MemoryLog()
    connection = await asyncpg.connect(migrated)
    async with running(migrated, log):
        transaction = connection.transaction()
        await transaction.start()
        await outbox.append(connection, entry("gone", 1))
        await transaction.rollback()
        await outbox.append(connection, entry("kept", 1))
        await eventually(lambda: [one.id for one in log.entries] == ["kept"])
    await connection.close()


async def test_a_version_is_taken_once(migrated: str) -> None:
    connection = await asyncpg.connect(migrated)
    await outbox.append(connection, entry("a", 1))
    with pytest.raises(asyncpg.UniqueViolationError):
        await outbox.append(connection, entry("a", 1))
    await connection.close()


async def test_a_failed_write_is_done_again_by_a_new_writer(migrated: str) -> None:
    log = MemoryLog(fails=2)
    connection = await asyncpg.connect(migrated)
    await outbox.append(connection, entry("a", 1))
    async with running(migrated, log) as relay:
        await eventually(lambda: len(log.entries) == 1)
        await eventually(lambda: relay.ready() is None)
    assert log.starts == 3
    await connection.close()


async def test_more_than_a_batch_is_published_without_waiting(migrated: str) -> None:
    log = MemoryLog()
    connection = await asyncpg.connect(migrated)
    await connection.execute(
        "INSERT INTO control.control_outbox (kind, account, aggregate, version, value) "
        "SELECT 'key', 'acc_1', 'k' || n, 1, '\\x7b7d' FROM generate_series(1, $1) AS n",
        limits.RELAY_BATCH_ENTRIES_MAX * 2 + 1,
    )
    async with running(migrated, log):
        await eventually(lambda: len(log.entries) == limits.RELAY_BATCH_ENTRIES_MAX * 2 + 1)
    await connection.close()


async def test_one_works_and_the_other_takes_over(migrated: str) -> None:
    first, second = MemoryLog(), MemoryLog()
    connection = await asyncpg.connect(migrated)
    async with running(migrated, second, name="second") as standby:
        async with running(migrated, first, name="first") as other:
            await eventually(lambda: standby.is_publishing != other.is_publishing)
            await outbox.append(connection, entry("a", 1))
            await eventually(lambda: len(first.entries) + len(second.entries) == 1)
        await eventually(lambda: standby.is_publishing)
        await outbox.append(connection, entry("a", 2))
        await eventually(lambda: second.entries[-1:] == [entry("a", 2)])
    assert len(first.entries) + len(second.entries) == 2
    await connection.close()


async def test_a_session_that_says_nothing_loses_its_locks(migrated: str) -> None:
    """How the lock is taken from a frozen relay."""
    next = await asyncpg.connect(migrated)
    frozen = await connect(migrated, name="frozen", idle_s=1.0)
    await frozen.execute("SELECT pg_advisory_lock(1)")

    async def free() -> bool:
        return bool(await next.fetchval("SELECT pg_try_advisory_lock(1)"))

    await eventually(free)
    with pytest.raises(AWAY):
        await frozen.execute("SELECT 1")
    await next.close()


async def test_a_pool_opens_nothing_before_it_is_asked(database: str) -> None:
    async with open_pool("postgresql://nobody@127.0.0.1:1/none", name="test") as pool:
        with pytest.raises(AWAY):
            await pool.fetchval("SELECT 1")
    async with open_pool(database, name="millrace test", statement_s=0.2) as pool:
        assert await pool.fetchval("SHOW application_name") == "millrace test"
        with pytest.raises(AWAY):
            await pool.fetchval("SELECT pg_sleep(5)")


async def test_a_server_that_is_away_is_a_retry() -> None:
    with pytest.raises(Retry, match="Postgres is away"):
        await connect("postgresql://nobody@127.0.0.1:1/none", name="test")
