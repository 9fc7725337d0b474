"""How the matcher grows with processes and partitions: measured with one and two, beyond that a model on paper.

Two cores hold the broker too, so that the clock says little of what two processes could do on cores of their own: what
is trusted is their CPU time an event, and at rest. The processes stand still (SIGSTOP) while a backlog is written, and
that is over before their session is; then they take it.
"""

import asyncio
import math
import time
from dataclasses import dataclass

from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader
from tests.bench import cpu
from tests.bench.matching import SUBSCRIPTIONS
from tests.bench.plots import Plot
from tests.bench.report import Figure, figure
from tests.bench.stack import Stack
from tests.bench.world import cluster_of, event_of, furnish
from tests.support.platform import Platform

PROCESSES = (1, 2)
PARTITIONS = (4, 12)
REST_S = 5.0
WRITE_RECORDS = 5_000


@dataclass(frozen=True, slots=True)
class Found:
    """CPU of all processes for one event, the share of a core that each takes at rest, and events by the clock."""

    event_us: float
    rest: float
    per_s: float


async def matcher(stack: Stack, *, count: int) -> list[Figure | Plot]:
    """So many events for each number of processes and of partitions."""
    found = {(n, parts): await _measured(stack, n, parts, count) for parts in PARTITIONS for n in PROCESSES}
    figures: list[Figure | Plot] = []
    for (n, parts), one in found.items():
        name = f"matcher, {n} process{'es' * (n > 1)}, {parts} partitions"
        figures += [
            figure(f"{name}: CPU an event", "µs", one.event_us, better="less"),
            figure(f"{name}: a core's share at rest", "%", one.rest * 100, better="less"),
            figure(f"{name}: backlog", "events/s", one.per_s),
        ]
    most = max(PARTITIONS)
    base = found[max(PROCESSES), most]
    curves: dict[str, list[tuple[float, float]]] = {
        "by the clock, two cores with the broker on them": [(n, found[n, most].per_s) for n in PROCESSES],
        "model: each process on a core of its own": [
            (n, modelled(n, partitions=most, event_us=base.event_us, rest=base.rest)) for n in range(1, most + 1)
        ],
    }
    return [Plot(f"Matcher by processes, {most} partitions", "processes", "events/s", curves), *figures]


def modelled(processes: int, *, partitions: int, event_us: float, rest: float) -> float:
    """Events a second of so many processes, each on a core of its own, when all partitions get as many.

    An event costs the same whoever handles it, and what a process takes at rest it takes at work too. The one with the
    most partitions is full first, so the curve is flat until another process takes one from it."""
    busiest = math.ceil(partitions / processes)
    return partitions / busiest * (1 - rest) * 1e6 / event_us


async def _measured(stack: Stack, processes: int, partitions: int, count: int) -> Found:
    namespace = f"scale{processes}of{partitions}"
    dsn = await stack.postgres.ensure_database(namespace)
    platform = Platform(stack.kafka.bootstrap, dsn, namespace, stack.folder / namespace)
    await asyncio.to_thread(platform.prepare, partitions=partitions)
    await furnish(platform, url="http://127.0.0.1:9/", subscriptions=SUBSCRIPTIONS)
    events = [event_of(n) for n in range(count)]
    producer = PlainProducer(cluster_of(platform))
    await producer.start()
    replicas = [f"matcher-{n}" for n in range(processes)]
    pids = [platform.start("matcher", replica=replica).process.pid for replica in replicas]
    try:
        await platform.ready(replicas, timeout_s=60)
        before = sum(map(cpu.cpu_seconds, pids))
        await asyncio.sleep(REST_S)
        rest = (sum(map(cpu.cpu_seconds, pids)) - before) / REST_S / processes
        for replica in replicas:
            platform.freeze(replica)
        for start in range(0, count, WRITE_RECORDS):
            await producer.write(events[start : start + WRITE_RECORDS])
        before, began = sum(map(cpu.cpu_seconds, pids)), time.perf_counter()
        for replica in replicas:
            platform.thaw(replica)
        await _facts(platform, count)
        took = time.perf_counter() - began
        return Found((sum(map(cpu.cpu_seconds, pids)) - before) / count * 1e6, rest, count / took)
    finally:
        platform.stop()
        await producer.stop()


async def _facts(platform: Platform, count: int, *, timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s), Reader(cluster_of(platform)) as reader:
        parts = await reader.partitions(["event-facts"])
        while sum((await reader.ends(parts)).values()) < count:
            await asyncio.sleep(0.05)
