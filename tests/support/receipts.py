"""Days of two seconds on a real log: facts appended, days closed, and what came of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from millrace_core.clock import Clock, SystemClock
from millrace_core.messages import DayClosed, ReceiptLeaves, ReceiptRecord, ReceiptRoot, decode
from millrace_core.receipts import FACT_TOPICS, Fact, day_of, fact_of
from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_projector.closing import Closing
from millrace_projector.ports import Acked, ReceiptLog
from millrace_store.pool import connect
from tests.support.processing import producing

DAY_MS = 2_000
GRACE_S = 0.2
LOOK_S = 0.1


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.days: list[tuple[int, int, int]] = []
        self.contradictions: list[tuple[str, int]] = []
        self.losses: list[int] = []
        self.failures: list[str] = []

    def closed(self, day: int, accounts: int, facts: int) -> None:
        self.days.append((day, accounts, facts))

    def contradicted(self, account_days: Sequence[tuple[str, int]]) -> None:
        self.contradictions = list(account_days)

    def lost(self, day: int) -> None:
        self.losses.append(day)

    def failed(self, reason: str) -> None:
        self.failures.append(reason)


class Dying:
    """A log whose writer dies before it writes what `dies_at` names."""

    def __init__(self, producer: PlainProducer, dies_at: bytes) -> None:
        self._producer = producer
        self._dies_at = dies_at

    async def write(self, outputs: Sequence[Output]) -> Sequence[Acked]:
        if any(self._dies_at in (output.value or b"") for output in outputs):
            raise Died(self._dies_at)
        return await self._producer.write(outputs)


class Hanging:
    """A log that never acks."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def write(self, outputs: Sequence[Output]) -> Sequence[Acked]:
        self.is_asked.set()
        await asyncio.Event().wait()
        return ()


class Died(Exception):
    """The process was killed."""


def closing(cluster: Cluster, dsn: str, log: ReceiptLog, told: Told, *, clock: Clock | None = None) -> Closing:
    return Closing(
        connect=partial(connect, dsn, name="test closing", statement_s=0),
        cluster=cluster,
        log=log,
        told=told,
        clock=clock or SystemClock(),
        day_ms=DAY_MS,
        grace_s=GRACE_S,
        look_s=LOOK_S,
        share=1.0,
    )


@asynccontextmanager
async def closing_days(cluster: Cluster, dsn: str, *, clock: Clock | None = None) -> AsyncIterator[Told]:
    """Days are closed inside the block."""
    told, stop = Told(), asyncio.Event()
    async with producing(cluster) as producer, asyncio.TaskGroup() as group:
        group.create_task(closing(cluster, dsn, producer, told, clock=clock).run(stop))
        try:
            yield told
        finally:
            stop.set()


async def roots(cluster: Cluster) -> list[ReceiptRoot]:
    """Every root on the log, repeats too, in the order of their days."""
    told = [one for one, _ in await _told(cluster)]
    return sorted((one for one in told if isinstance(one, ReceiptRoot)), key=lambda root: root.day)


async def facts_of_days(cluster: Cluster) -> dict[int, dict[bytes, Fact]]:
    """What the log says should be proven: the first fact of each id, for each day in the order of the days."""
    found: dict[int, dict[bytes, Fact]] = {}
    for record in await read_all(cluster, FACT_TOPICS):
        if (fact := fact_of(record)) is not None:
            found.setdefault(day_of(record.timestamp, DAY_MS), {}).setdefault(fact.id, fact)
    return dict(sorted(found.items()))


async def closed_days(cluster: Cluster) -> list[tuple[int, int]]:
    """Every closed day, with the broker's time of the record that says so."""
    return [(one.day, at) for one, at in await _told(cluster) if isinstance(one, DayClosed)]


async def _told(cluster: Cluster) -> list[tuple[ReceiptRecord, int]]:
    records = await read_all(cluster, ["receipt-roots"])
    return [(decode(record.value, ReceiptRecord), record.timestamp) for record in records]  # type: ignore[arg-type]


async def leaves(cluster: Cluster) -> list[ReceiptLeaves]:
    """Every chunk on the log, repeats too."""
    return [decode(record.value, ReceiptLeaves) for record in await read_all(cluster, ["receipt-leaves"])]
