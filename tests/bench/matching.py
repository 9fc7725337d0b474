"""The matcher beside a bare consume-transform-produce loop, and the projector beside a bare COPY into its own tables.

The same prepared events serve both: the matcher turns them into deliveries and facts, the projector then turns all of
it into rows. Times are the broker's own, from the first output to the last, so that start-up does not count.
"""

import asyncio
import os
import time

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer

from tests.bench.load import event_body
from tests.bench.report import Figure, figure
from tests.bench.stack import PARTITIONS, Stack, ends, says_ready, span_s
from tests.bench.world import cluster_of, event_of, furnish, write
from tests.support.platform import Platform

SUBSCRIPTIONS = 1_000
TABLES = ("events", "event_outcomes", "event_matches", "deliveries")
# A fact is an outcome and its match.
ROWS_OF_POSITIONS = """SELECT sum(CASE topic WHEN 'event-facts' THEN 2 ELSE 1 END * next_offset) FROM read.positions
    WHERE topic IN ('events', 'event-facts', 'deliveries')"""


async def reached(bootstrap: str, topic: str, count: int, *, timeout_s: float = 300) -> None:
    """Wait until a topic has so many offsets."""
    deadline = time.monotonic() + timeout_s
    while await ends(bootstrap, topic) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} holds {await ends(bootstrap, topic)} of {count}")
        await asyncio.sleep(0.2)


async def _fill_limit(stack: Stack, prefix: str, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka.bootstrap, linger_ms=5, max_batch_size=262144)
    await producer.start()
    for n in range(count):
        value = orjson.dumps(
            {
                "id": f"{n:032x}",
                "account": "a",
                "type": "e:bench/order",
                "at": 1.0,
                "properties": orjson.loads(event_body(n))["properties"],
            }
        )
        await producer.send(prefix + "ev", value, key=b"e:bench/order", partition=n % PARTITIONS)
    await producer.stop()


async def run(stack: Stack, *, rounds: int, count: int) -> list[Figure]:
    """Matcher events/s and projector rows/s, each beside its limit."""
    bootstrap = stack.kafka.bootstrap
    matcher: list[float] = []
    matcher_limit: list[float] = []
    rows: list[float] = []
    rows_limit: list[float] = []
    for _ in range(rounds):
        platform = await stack.platform()
        try:
            await furnish(platform, url="http://127.0.0.1:9/", subscriptions=SUBSCRIPTIONS)
            await write(platform, map(event_of, range(count)))
            platform.start("matcher")
            topic = cluster_of(platform).topic
            await reached(bootstrap, topic("deliveries"), count)
            await reached(bootstrap, topic("event-facts"), count)
            platform.stop()
            took, delivery_bytes = await span_s(bootstrap, topic("deliveries"))
            _, fact_bytes = await span_s(bootstrap, topic("event-facts"))
            matcher.append(count / took)
            matcher_limit.append(await _limit_matcher(stack, count, delivery_bytes, fact_bytes))
            ours, bare = await _projector(platform, count)
            rows.append(ours)
            rows_limit.append(bare)
        finally:
            platform.stop()
    return [
        figure("matcher, 1,000 subscriptions", "events/s", matcher, limit=matcher_limit, bar=0.6, against="ratio"),
        figure("projector", "rows/s", rows, limit=rows_limit, bar=0.6, against="ratio"),
    ]


async def _limit_matcher(stack: Stack, count: int, delivery_bytes: float, fact_bytes: float) -> float:
    prefix = await stack.limit_topics()
    await _fill_limit(stack, prefix, count)
    # The loop's own outputs are about 330 and 55 bytes.
    pads = {
        "BENCH_PAD_DELIVERY": str(max(0, int(delivery_bytes) - 330)),
        "BENCH_PAD_FACT": str(max(0, int(fact_bytes) - 55)),
    }
    process = stack.limit("matcher", prefix, env=pads)
    try:
        await says_ready(process)
        await reached(stack.kafka.bootstrap, prefix + "dl", count)
        await reached(stack.kafka.bootstrap, prefix + "ef", count)
    finally:
        stack.end(process)
    took, _ = await span_s(stack.kafka.bootstrap, prefix + "dl")
    return count / took


async def _projector(platform: Platform, count: int) -> tuple[float, float]:
    """Rows a second from the first row seen to the last, and COPY of the same rows into tables made like them. Seen by
    the positions: to count rows again and again would be the larger work."""
    db = await asyncpg.connect(platform.postgres)
    try:
        platform.start("projector")
        began_at, began_rows = 0.0, 0
        total = count * len(TABLES)
        deadline = time.monotonic() + 300
        while True:
            seen = int(await db.fetchval(ROWS_OF_POSITIONS) or 0)
            now = time.perf_counter()
            if not began_at and seen:
                began_at, began_rows = now, seen
            if seen >= total:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{seen} of {total} rows:\n{platform.tail('projector')}")
            await asyncio.sleep(0.1)
        ours = (total - began_rows) / (time.perf_counter() - began_at)
        platform.stop()
        for table in TABLES:
            assert await db.fetchval(f"select count(*) from read.{table}") == count, table
        return ours, await _bare_copy(db)
    finally:
        await db.close()


async def _bare_copy(db: asyncpg.Connection) -> float:
    """COPY the prebuilt rows, 1,000 a transaction, into tables with the same columns and indexes."""
    schema = f"bare_{os.urandom(4).hex()}"
    await db.execute(f"create schema {schema}")
    copied, took = 0, 0.0
    for table in TABLES:
        rows = await db.fetch(f"select * from read.{table} order by 1, 2")
        await db.execute(f"create table {schema}.{table} (like read.{table} including all excluding generated)")
        tuples = [tuple(row) for row in rows]
        began = time.perf_counter()
        for start in range(0, len(tuples), 1_000):
            async with db.transaction():
                await db.copy_records_to_table(table, schema_name=schema, records=tuples[start : start + 1_000])
        took += time.perf_counter() - began
        copied += len(tuples)
    return copied / took
