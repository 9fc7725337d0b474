"""Compares the log with the read models all the time: what is missing (`millrace_unaccounted`), and what is late.

Missing are records of `events` that the matcher has passed and of which the account book holds no outcome, whatever
their age; and of today and yesterday, children that facts name without a row of their own after a minute, and runs that
are neither over nor at any step. Late is the oldest that waits at each stage. One projector counts, whichever holds the
lock: it asks how far the matcher is, and once the read models have passed all that was told of that, it counts. That
never takes more than a twentieth of the time. How long ago it last did is a gauge too, and before the first count there
is no number: 0 is only said when it was found. The proof over everything, live places included, is `millrace verify`.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from structlog.typing import FilteringBoundLogger

from millrace_core.clock import Clock, utc_now
from millrace_core.ids import DAY_MS
from millrace_core.restart import pause
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.reader import Reader
from millrace_store import queries
from millrace_store.days import first_id
from millrace_store.leading import Leader
from millrace_store.pool import Connection

EVERY_S = 10.0
SHARE_MAX = 0.05
KNOWN_FOR = timedelta(minutes=1)
_LOCK = 0x756E616363740001  # "unacct": any fixed number of its own
_SQL = queries.load("unaccounted")
_TOLD_IN = ("event-facts", "dead-letters", "run-commands", "deliveries")


@dataclass(frozen=True, slots=True)
class Settled:
    """What the matcher has answered for: on each partition of `events` all records from its start up to `until`. Their
    outcomes and children lie below `told_until`, since a matcher commits after its outputs and facts are acked.
    `waiting_since` is the broker's time on the oldest that it has not answered for; None = there is none."""

    starts: Mapping[int, int]
    until: Mapping[int, int]
    waiting_since: datetime | None
    told_until: Mapping[tuple[str, int], int]


async def settled(cluster: Cluster) -> Settled:
    """Ask the broker. Raises Retry when it is away."""
    async with Admin(cluster) as admin, Reader(cluster) as reader:
        committed = await admin.committed("matcher", ["events"])
        told_until = await reader.ends(await reader.partitions(_TOLD_IN))
        starts, ends = await reader.starts(committed), await reader.ends(committed)
        first = {part: max(at.offset, starts[part]) for part, at in committed.items()}
        waiting = {part: at for part, at in first.items() if at < ends[part]}
        times = [
            _moment(record.timestamp)
            async for records in reader.read(waiting, {part: at + 1 for part, at in waiting.items()})
            for record in records
        ]
        return Settled(
            starts={number: at for (_, number), at in starts.items()},
            until={number: at.offset for (_, number), at in committed.items()},
            waiting_since=min(times, default=None),
            told_until=told_until,
        )


@dataclass(frozen=True, slots=True)
class Balance:
    """One count. `undecided` are the records of `events` without an outcome by partition, `stuck` the runs that are
    neither over nor at any step; `oldest_age_s` is by stage, 0 = none."""

    undecided: Mapping[int, int]
    never_asked: int
    stuck: int
    oldest_age_s: Mapping[str, float]

    @property
    def unaccounted(self) -> int:
        return sum(self.undecided.values()) + self.never_asked + self.stuck


class Reconciler:
    """Counts until told to stop."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        settled: Callable[[], Awaitable[Settled]],
        found: Callable[[Balance], None],
        clock: Clock,
        log: FilteringBoundLogger,
        every_s: float = EVERY_S,
    ) -> None:
        self._leader = Leader(connect, lock=_LOCK, work=self._count_on)
        self._settled = settled
        self._asked: Settled | None = None
        self._asked_at = datetime.min.replace(tzinfo=UTC)
        self._whole_until: datetime | None = None
        self._clear_until: dict[int, int] = {}
        self._stuck: frozenset[str] = frozenset()
        self._found = found
        self._clock = clock
        self._log = log
        self._every_s = every_s
        self._counted_at: float | None = None

    def age_s(self) -> float:
        """Time since this process last counted; infinite before it ever did."""
        return math.inf if self._counted_at is None else self._clock.monotonic() - self._counted_at

    async def run(self, stop: asyncio.Event) -> None:
        """The worker. Postgres away only means that nothing is counted meanwhile."""
        await self._leader.run(stop)

    async def _count_on(self, connection: Connection, stop: asyncio.Event) -> None:
        while not stop.is_set():
            took_s = await self._turn(connection)
            self._leader.moved()
            await pause(stop, max(self._every_s, took_s / SHARE_MAX))

    async def _turn(self, connection: Connection) -> float:
        """Count what the last turn asked about, if the read models have passed it by now; then ask again. Answers how
        long counting took."""
        asked, took_s = self._asked, 0.0
        if asked is not None and not await self._ahead(connection, asked):
            took_s = await self._count(connection, asked)
            asked = None
        if asked is None:
            self._asked_at = utc_now(self._clock)
            self._asked = await self._settled()
        return took_s

    async def _ahead(self, connection: Connection, asked: Settled) -> int:
        """How many partitions the read models have not read as far as that."""
        topics = [topic for topic, _ in asked.told_until]
        numbers = [number for _, number in asked.told_until]
        ahead: int = await connection.fetchval(_SQL["not_passed"], topics, numbers, list(asked.told_until.values()))
        return ahead

    async def _count(self, connection: Connection, asked: Settled) -> float:
        began, now_ms = self._clock.monotonic(), self._clock.now_ms()
        now, yesterday = _moment(now_ms), now_ms // DAY_MS - 1
        undecided = await self._undecided(connection, asked)
        never_asked = await self._never_asked(connection, asked, _moment(yesterday * DAY_MS))
        since = first_id(yesterday)
        stuck = frozenset(str(row["id"]) for row in await connection.fetch(_SQL["stuck"], since, now - KNOWN_FOR))
        async with connection.transaction():
            await connection.execute(_SQL["by_index"])
            oldest = {row["stage"]: row["since"] for row in await connection.fetch(_SQL["oldest"], since, now)}
        passed_over = await connection.fetchval(_SQL["undecided_since"], since) if any(undecided.values()) else None
        oldest["matcher"] = min(filter(None, (asked.waiting_since, passed_over)), default=None)
        # A run may be seen between two batches of its facts, but not twice.
        still, self._stuck = stuck & self._stuck, stuck
        ages = {stage: _age_s(since, now) for stage, since in oldest.items()}
        self._found(Balance(undecided, never_asked, len(still), ages))
        self._counted_at = self._clock.monotonic()
        return self._counted_at - began

    async def _never_asked(self, connection: Connection, asked: Settled, yesterday: datetime) -> int:
        """Of the records that the broker took before the first that is not answered for. What was found whole before is
        not looked at again: what was asked for once stays so."""
        start, until = self._whole_until or yesterday, self._asked_at - KNOWN_FOR
        if asked.waiting_since is not None:
            until = min(until, asked.waiting_since)
        if start >= until:
            return 0
        count: int = await connection.fetchval(_SQL["never_asked"], start, until)
        if count == 0:
            self._whole_until = until
        return count

    async def _undecided(self, connection: Connection, asked: Settled) -> dict[int, int]:
        """What was found whole before is not counted again: an outcome is never taken back."""
        starts = {number: max(at, self._clear_until.get(number, 0)) for number, at in asked.starts.items()}
        await connection.execute(_SQL["forget_settled"], list(asked.starts), list(asked.starts.values()))
        rows = await connection.fetch(
            _SQL["undecided"], list(starts), list(starts.values()), [asked.until[number] for number in starts]
        )
        for row in rows:
            if row["undecided"]:
                self._log.error(
                    "events.undecided", partition=row["partition"], count=row["undecided"], first=row["first"]
                )
            else:
                self._clear_until[row["partition"]] = asked.until[row["partition"]]
        return {row["partition"]: row["undecided"] for row in rows}


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
