"""How many statements of SQL the projector takes for a hundred events, counted by Postgres itself.

A server of its own counts, since counting costs. Of a backlog, whose batches are as full as they may be; and of events
that come steadily and are delivered, where a batch is what came while the projector paused, so that the statements of a
second hardly depend on the rate. Everything it asks counts, between two looks: positions, COPY, merges, the beginning
and end of transactions, and what its reconciler and its keeper of days ask now and then.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count as numbers

import asyncpg

from millrace_devstack.postgres import Postgres
from millrace_kafka.producer import PlainProducer
from tests.bench.matching import reached
from tests.bench.report import Figure, figure
from tests.bench.stack import Stack
from tests.bench.world import cluster_of, event_of, furnish, write
from tests.support.platform import Platform

STATEMENTS_MAX = 3
RATES = (1_000, 3_000)
TURN_S = 0.02
_COUNTING = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "top"}
# What is asked here says so by a name in it (values are not kept): it is in the same database, and must not count.
_LOOK = """
SELECT (SELECT count(*) FROM read.event_outcomes) AS events,
       (SELECT COALESCE(sum(s.calls), 0)::bigint FROM pg_stat_statements AS s
        WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND s.query NOT LIKE '%the_bench_looks%') AS statements,
       1 AS the_bench_looks"""
_WHICH = """
SELECT calls, regexp_replace(left(query, 60), '\\s+', ' ', 'g') AS query, 1 AS the_bench_looks
FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query NOT LIKE '%the_bench_looks%'
ORDER BY calls DESC LIMIT 12"""


@dataclass(frozen=True, slots=True)
class Seen:
    """How many events the read models had, and how many statements had been asked."""

    events: int
    statements: int


async def projector(stack: Stack, *, count: int, seconds: float) -> list[Figure]:
    """Statements for each hundred events: of a backlog of `count`, and at each of RATES for so long."""
    async with Postgres(stack.folder / "counting", settings=_COUNTING) as postgres:
        counting = replace(stack, postgres=postgres)
        backlog = await _backlog(counting, count)
        steady = {rate: await _steady(counting, rate, seconds) for rate in RATES}
    name, unit = "projector's statements", "a 100 events"
    return [
        figure(f"{name}, backlog of {count:,}", unit, backlog, bar=STATEMENTS_MAX, better="less"),
        *(
            figure(
                f"{name}, {rate:,} events/s",
                unit,
                found,
                bar=STATEMENTS_MAX if rate == max(RATES) else None,
                better="less",
            )
            for rate, found in steady.items()
        ),
    ]


async def _backlog(stack: Stack, count: int) -> float:
    async with _world(stack) as (platform, rows):
        await furnish(platform, url="http://127.0.0.1:9/")
        await write(platform, map(event_of, range(count)))
        platform.start("matcher")
        for topic in ("deliveries", "event-facts"):
            await reached(stack.kafka.bootstrap, cluster_of(platform).topic(topic), count)
        platform.start("projector")
        first = await _until(rows, lambda seen: seen.events > 0)
        last = await _until(rows, lambda seen: seen.events >= count)
        return await _ratio(rows, first, last)


async def _steady(stack: Stack, rate: int, seconds: float) -> float:
    async with _world(stack) as (platform, rows):
        sink = await stack.sink()
        await furnish(platform, url=sink.url)
        names = ("matcher", "dispatcher", "projector")
        for name in names:
            platform.start(name)
        await platform.ready(names)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_post(platform, rate, stop))
            first = await _until(rows, lambda seen: seen.events >= rate * seconds / 4)
            last = await _until(rows, lambda seen: seen.events >= first.events + rate * seconds)
            stop.set()
        stack.end(sink.process)
        return await _ratio(rows, first, last)


async def _post(platform: Platform, rate: int, stop: asyncio.Event) -> None:
    """Events at this rate, a few in each turn, until told to stop."""
    producer = PlainProducer(cluster_of(platform))
    await producer.start()
    began, posted, ns = time.perf_counter(), 0, numbers()
    while not stop.is_set():
        due = int((time.perf_counter() - began) * rate) - posted
        if due:
            await producer.write([event_of(next(ns)) for _ in range(due)])
            posted += due
        await asyncio.sleep(TURN_S)
    await producer.stop()


@asynccontextmanager
async def _world(stack: Stack) -> AsyncIterator[tuple[Platform, asyncpg.Connection]]:
    platform = await stack.platform()
    rows = await asyncpg.connect(platform.postgres)
    try:
        await rows.execute("CREATE EXTENSION pg_stat_statements")
        yield platform, rows
    finally:
        platform.stop()
        await rows.close()


async def _until(rows: asyncpg.Connection, is_met: Callable[[Seen], bool], *, timeout_s: float = 300) -> Seen:
    async with asyncio.timeout(timeout_s):
        while True:
            row = await rows.fetchrow(_LOOK)
            assert row is not None
            seen = Seen(row["events"], row["statements"])
            if is_met(seen):
                return seen
            await asyncio.sleep(0.05)


async def _ratio(rows: asyncpg.Connection, first: Seen, last: Seen) -> float:
    for row in await rows.fetch(_WHICH):
        print(f"{row['calls']:>8} {row['query']}", file=sys.stderr, flush=True)
    return 100 * (last.statements - first.statements) / (last.events - first.events)
