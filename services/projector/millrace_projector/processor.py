"""The projector's loop: what the group assigned, read from the positions in Postgres, into Postgres.

Postgres or the broker away: it waits and begins again, for ever, unready meanwhile; nothing is lost, since a position
moves only with its rows. Another owner ahead of it (a frozen process that woke, a rebuild that swapped the schema):
its batch rolls back and it reads the positions anew. A position outside the log stops that partition and says so.
"""

import asyncio
from collections.abc import Awaitable, Callable

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.errors import Retry, Stale
from millrace_core.record import Received
from millrace_core.restart import backoff_s, pause
from millrace_kafka.observer import Observer
from millrace_kafka.positioned import PositionedConsumer
from millrace_kafka.reader import OffLog, Reader
from millrace_projector.batches import PIECE, Batches
from millrace_projector.ports import Told
from millrace_store.pool import AWAY, Connection
from millrace_store.projection import Place, Projection

POLL_S = 0.25
AGE_EVERY_S = 1.0


class PostgresAway(Retry):
    """Postgres is away."""


class Projector:
    """Runs until told to stop. `connect` opens a connection of its own; `consumer` makes a member of the group."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        consumer: Callable[[], PositionedConsumer],
        projection: Projection,
        batches: Batches,
        observer: Observer,
        told: Told,
        clock: Clock,
        gather_s: float = limits.PROJECTOR_GATHER_S,
        records_max: int = limits.PROJECTOR_RECORDS_MAX,
    ) -> None:
        self._connect = connect
        self._make_consumer = consumer
        self._projection = projection
        self._batches = batches
        self._observer = observer
        self._told = told
        self._clock = clock
        self._gather_s = gather_s
        self._records_max = records_max
        self._why: str | None = "not started"
        self.is_behind = True
        """Whether records wait that are not in the read models, as known a second ago."""
        self._off_log: dict[Place, str] = {}
        self._generation = -1
        self._committed_at = float("-inf")
        self._per_s = 0.0
        self._aged_at = 0.0
        self._times: dict[Place, int] = {}
        self._read_to: dict[Place, int] = {}

    def ready(self) -> str | None:
        """None while batches are being projected; else why not."""
        if self._off_log:
            return "; ".join(f"{topic}/{partition}: {why}" for (topic, partition), why in self._off_log.items())
        return self._why

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: live, and after any failure live again, until `stop`."""
        failures = 0
        while not stop.is_set():
            try:
                async with self._make_consumer() as consumer:
                    failures = 0
                    await self._with_postgres(consumer, stop)
            except Retry as error:
                self._why = str(error)
                self._observer.restarted("projector", self._why)
                await pause(stop, backoff_s(failures))
                failures += 1

    async def _with_postgres(self, consumer: PositionedConsumer, stop: asyncio.Event) -> None:
        """One life after another of the connection; the membership outlives them."""
        failures = 0
        while not stop.is_set():
            connection: Connection | None = None
            try:
                connection = await self._connected()
                while not stop.is_set():
                    self._generation = -1
                    await self._follow(consumer, connection, stop)
                    failures = 0
            except AWAY as error:
                self._why = f"Postgres is away: {str(error) or type(error).__name__}"
            except PostgresAway as error:
                self._why = str(error)
            finally:
                if connection is not None:
                    connection.terminate()
            if not stop.is_set():
                self._observer.restarted("postgres", self._why or "")
                await pause(stop, backoff_s(failures))
                failures += 1

    async def _connected(self) -> Connection:
        try:
            return await self._connect()
        except Retry as error:
            raise PostgresAway(str(error)) from error

    async def _follow(self, consumer: PositionedConsumer, connection: Connection, stop: asyncio.Event) -> None:
        """Batch after batch, the next one read and parsed while the one before is stored, until the positions have to
        be read anew."""
        storing: asyncio.Task[None] | None = None
        try:
            while not stop.is_set():
                consumer.check()
                if self._generation != consumer.generation:
                    if storing is not None:
                        await storing
                    await self._take_over(consumer, connection)
                records = await self._gathered(consumer)
                batch = await self._batches.prepare(records, consumer.moved(self._read_to))
                if storing is not None:
                    await storing
                    self._why = None if consumer.generation else "waiting for partitions"
                self._read_to |= batch.ends
                storing = asyncio.ensure_future(self._batches.commit(connection, batch))
                self._tell(consumer, records)
            if storing is not None:
                await storing
        except Stale as error:
            self._observer.restarted("positions", str(error))
        except OffLog:
            if storing is not None:
                await storing
            await self._look_for_off_log(consumer)
        finally:
            await _ended(storing)

    async def _gathered(self, consumer: PositionedConsumer) -> list[Received]:
        """A batch: at once when nothing was committed lately, else what has come since, so that a busy projector
        writes few large transactions, and few rows of which it hears more in the next one."""
        records = await self._read(consumer, self._records_max, timeout_s=POLL_S)
        pause = self._committed_at + gather_s(self._gather_s, self._per_s) - self._clock.monotonic()
        if records and pause > 0 and len(records) < self._records_max and not self._is_cut(consumer, len(records)):
            await asyncio.sleep(pause)
            records += await self._read(consumer, self._records_max - len(records), timeout_s=0)
        if records:
            now = self._clock.monotonic()
            self._per_s = len(records) / max(now - self._committed_at, 0.001)
            self._committed_at = now
        return records

    @staticmethod
    async def _read(consumer: PositionedConsumer, most: int, *, timeout_s: float) -> list[Received]:
        """What lies ready, up to so many: in pieces, between which a batch that is being stored goes on."""
        records: list[Received] = []
        while True:
            piece = await consumer.poll(timeout_s=timeout_s, max_records=min(PIECE, most - len(records)))
            records += piece
            if len(piece) < PIECE or len(records) == most:
                return records
            timeout_s = 0
            await asyncio.sleep(0)

    def _is_cut(self, consumer: PositionedConsumer, count: int) -> bool:
        """Whether more lay on the log than a fetch brings: large records, or a backlog. A pause would only add to it,
        since nothing is fetched before what was fetched is read."""
        return sum(map(consumer.behind, consumer.owned)) > count

    async def _take_over(self, consumer: PositionedConsumer, connection: Connection) -> None:
        """Read from where the read models are. Partitions they do not know begin at the log's start."""
        generation, owned = consumer.generation, consumer.owned - self._off_log.keys()
        await self._batches.reload(connection)
        if unknown := owned - self._batches.positions.keys():
            await self._projection.begin(connection, await consumer.reader.starts(unknown))
            await self._batches.reload(connection)
        self._read_to = {place: self._batches.positions[place] for place in owned}
        consumer.assign(self._read_to)
        self._generation = generation

    async def _look_for_off_log(self, consumer: PositionedConsumer) -> None:
        self._off_log |= await off_log(consumer.reader, self._read_to)
        for (topic, partition), why in self._off_log.items():
            self._observer.stopped(topic, partition, why)

    def _tell(self, consumer: PositionedConsumer, records: list[Received]) -> None:
        now = self._clock.monotonic()
        for record in records[-1:]:
            self._observer.batch(record.topic, record.partition, len(records), now - self._committed_at)
        last = {(record.topic, record.partition): record for record in records}
        self._times |= {consumer.place(record): record.timestamp for record in last.values()}
        if now - self._aged_at < AGE_EVERY_S:
            return
        self._aged_at = now
        wall_ms = self._clock.now_ms()
        self.is_behind = self._why is not None or any(consumer.behind(place) for place in consumer.owned)
        for place in consumer.owned:
            behind = consumer.behind(place)
            age_s = max(0, wall_ms - self._times.get(place, wall_ms)) / 1000 if behind else 0.0
            self._told.age(*place, age_s)
            self._observer.lag(*place, behind, age_s)


def gather_s(most_s: float, per_s: float) -> float:
    """The least time between two commits at this rate of records (docs/adr/0007)."""
    share = per_s / limits.PROJECTOR_GATHER_FULL_PER_S
    return most_s * min(1.0, max(limits.PROJECTOR_GATHER_SHARE_MIN, share))


async def off_log(reader: Reader, positions: dict[Place, int]) -> dict[Place, str]:
    """Which positions lie outside the log, and what to do about it."""
    starts, ends = await reader.starts(positions), await reader.ends(positions)
    return {
        place: f"position {offset} is outside the log ({starts[place]} to {ends[place]}): run `millrace rebuild`"
        for place, offset in positions.items()
        if not starts[place] <= offset <= ends[place]
    }


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Nothing of it goes on behind the caller's back. Its connection is not used again if it had to be cancelled."""
    if task is None:
        return
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
