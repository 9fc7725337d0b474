"""The worker behind replays and the figures about it, on a Postgres without an API around them."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg
import pytest
import structlog

from millrace_api.application.database import Database
from millrace_api.application.runs import Place
from millrace_api.backlog_watch import BacklogWatch
from millrace_api.replaying import Replaying
from millrace_core import ids
from millrace_core.clock import ManualClock, SystemClock
from millrace_core.errors import Retry
from millrace_core.record import Output
from millrace_runtime.metrics import Metrics
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool
from tests.support.processing import running
from tests.support.waiting import eventually

_ACCOUNT = """INSERT INTO control.accounts (id, version, name, plan, created_at)
    VALUES ('acc_1', 1, 'one', 'free', now()) ON CONFLICT DO NOTHING"""
_REPLAY = """INSERT INTO control.replays (account, id, state, since, until, pattern, per_s, cursor_at, cursor_id,
        requested_by, created_at, updated_at)
    VALUES ('acc_1', $1, $2, '2026-01-01Z', now(), 'e:*/*', 100, '2026-01-01Z', gen_random_uuid(), 'key_1', $3, $3)"""
_EVENT = """INSERT INTO read.events (id, account, identifier, received_at, hops, partition, "offset", properties)
    VALUES ($1, 'acc_1', 'e:a/b', '2026-01-02Z', 0, 0, 0, '{}')"""


@pytest.fixture
async def migrated(database: str) -> str:
    await migrate(database)
    return database


async def asked_for(database: str, state: str, *, since_ms: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(_ACCOUNT)
        at = datetime.fromtimestamp(since_ms / 1000, UTC)
        await connection.execute(_REPLAY, ids.uuid_of(ids.new_id(ids.REPLAY)), state, at)
        await connection.execute(_EVENT, ids.uuid_of(ids.new_id(ids.EVENT)))
    finally:
        await connection.close()


class FailingLog:
    """A log that is away for as long as `fails`."""

    def __init__(self) -> None:
        self.fails = True

    async def write(self, outputs: Sequence[Output]) -> Sequence[Place]:
        if self.fails:
            raise Retry("the log is away")
        return []


async def test_a_worker_that_cannot_write_is_not_ready_and_says_why(migrated: str) -> None:
    log, written = FailingLog(), list[int]()

    async def caught_up() -> bool:
        return True

    await asked_for(migrated, "waiting", since_ms=SystemClock().now_ms())
    worker = Replaying(
        migrated,
        events=log,
        caught_up=caught_up,
        written=written.append,
        clock=SystemClock(),
        log=structlog.get_logger(),
    )
    assert worker.ready() == "not started"
    async with running(worker):
        await eventually(lambda: worker.ready() == "starting anew: the log is away")
        log.fails = False
        await eventually(lambda: worker.ready() is None)
        assert written == [1]


async def test_what_waits_is_counted_and_aged(migrated: str) -> None:
    clock = ManualClock()
    for state, age_s in (("waiting", 10), ("running", 90), ("waiting", 20)):
        await asked_for(migrated, state, since_ms=clock.now_ms() - age_s * 1000)
    metrics = Metrics()

    def shown(name: str) -> float | None:
        found = re.search(rf"^{re.escape(name)} (\S+)$", metrics.exposition().decode(), re.MULTILINE)
        return None if found is None else float(found[1])

    async with open_pool(migrated, name="test") as pool:
        stop = asyncio.Event()
        watch = BacklogWatch(Database(pool), metrics, clock=clock, every_s=0.05)
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(stop))
            await eventually(lambda: shown('millrace_replay_live_replays{state="waiting"}') == 2)
            stop.set()
    assert shown('millrace_replay_live_replays{state="running"}') == 1
    assert shown("millrace_replay_oldest_waiting_age_seconds") == 90
    assert shown("millrace_relay_waiting_entries") == 0
