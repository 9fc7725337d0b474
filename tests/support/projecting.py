"""A projector inside the test's own loop, on a real broker and a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from millrace_core.clock import SystemClock
from millrace_kafka.client import Cluster
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.positioned import PositionedConsumer
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader
from millrace_projector.batches import Batches
from millrace_projector.handlers import TOPICS
from millrace_projector.ports import Untold
from millrace_projector.processor import Projector
from millrace_projector.tables import TABLES
from millrace_store.pool import connect
from millrace_store.projection import Projection
from tests.support.waiting import eventually


class Failing(Exception):
    """A worker ended by itself."""


@asynccontextmanager
async def projector(
    cluster: Cluster,
    dsn: str,
    *,
    projection: Projection | None = None,
    observer: Observer | None = None,
    instance: str = "one",
) -> AsyncIterator[Projector]:
    """A projector that runs inside the block."""
    observer, projection = observer or Silent(), projection or Projection()
    producer = PlainProducer(cluster)
    await producer.start()
    made = Projector(
        connect=partial(connect, dsn, name=f"test {instance}"),
        consumer=partial(PositionedConsumer, cluster, group="projector", topics=TOPICS, instance=instance),
        projection=projection,
        batches=Batches(projection, letters=producer, observer=observer, told=Untold(), clock=SystemClock()),
        observer=observer,
        told=Untold(),
        clock=SystemClock(),
    )
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(made.run(stop))
            try:
                yield made
            finally:
                stop.set()
    finally:
        await producer.stop()


async def until_projected(cluster: Cluster, dsn: str, *, timeout_s: float = 30.0) -> None:
    """Wait until the read models have passed the present ends of every topic the projector reads."""
    async with Reader(cluster) as reader:
        ends = await reader.ends(await reader.partitions(TOPICS))
    connection = await asyncpg.connect(dsn)
    try:

        async def passed() -> bool:
            rows = await connection.fetch("SELECT topic, partition, next_offset FROM read.positions")
            at = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            behind = {place: (at.get(place), end) for place, end in ends.items() if at.get(place, -1) < end}
            assert not behind, behind
            return True

        await eventually(passed, timeout_s=timeout_s, what="projection")
    finally:
        await connection.close()


async def tables(dsn: str, schema: str = "read") -> dict[str, list[tuple[object, ...]]]:
    """Every row of every read model, in the order of their keys."""
    connection = await asyncpg.connect(dsn)
    try:
        found = {}
        for table in TABLES:
            columns = ", ".join(f'"{column}"' for column in table.columns)
            order = ", ".join(f'"{column}"' for column in table.columns[: table.key])
            rows = await connection.fetch(f'SELECT {columns} FROM {schema}."{table.name}" ORDER BY {order}')
            found[table.name] = [tuple(row) for row in rows]
        return found
    finally:
        await connection.close()
