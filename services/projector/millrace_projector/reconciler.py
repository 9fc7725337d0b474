"""What the read models themselves show to be missing (`millrace_unaccounted`) and to be late, counted now and then.

Events of today and yesterday without an outcome, and children that facts name without a row of their own, both for at
least a minute; of the same days the oldest that waits at each stage. One projector counts, whichever holds the lock,
while nothing is left to project; counting never takes more than a twentieth of the time. How long ago it last did is a
gauge too, and before the first count there is no number: 0 is only said when it was found. The proof over everything,
live places included, is `millrace verify`.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_core.ids import DAY_MS
from millrace_kafka.restart import pause
from millrace_store import queries
from millrace_store.pool import AWAY, Connection

EVERY_S = 10.0
SHARE_MAX = 0.05
KNOWN_FOR = timedelta(minutes=1)
_LOCK = 0x756E616363740001  # "unacct": any fixed number of its own
_SQL = queries.load("unaccounted")


@dataclass(frozen=True, slots=True)
class Balance:
    """One count. `undecided` are the events without an outcome by partition; `oldest_age_s` is by stage, 0 = none."""

    undecided: Mapping[int, int]
    never_asked: int
    oldest_age_s: Mapping[str, float]

    @property
    def unaccounted(self) -> int:
        return sum(self.undecided.values()) + self.never_asked


class Reconciler:
    """Counts until told to stop. `is_behind` says whether the projector has something left to project."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        is_behind: Callable[[], bool],
        found: Callable[[Balance], None],
        clock: Clock,
        every_s: float = EVERY_S,
    ) -> None:
        self._connect = connect
        self._is_behind = is_behind
        self._found = found
        self._clock = clock
        self._every_s = every_s
        self._counted_at: float | None = None

    def age_s(self) -> float:
        """Time since this process last counted; infinite before it ever did."""
        return math.inf if self._counted_at is None else self._clock.monotonic() - self._counted_at

    async def run(self, stop: asyncio.Event) -> None:
        """The worker. Postgres away only means that nothing is counted meanwhile."""
        while not stop.is_set():
            with contextlib.suppress(Retry, *AWAY):
                await self._count_on(stop)
            await pause(stop, self._every_s)

    async def _count_on(self, stop: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            while not stop.is_set():
                pause_s = self._every_s
                if not self._is_behind() and await connection.fetchval(_SQL["take_lock"], _LOCK):
                    pause_s = max(pause_s, await self._count(connection) / SHARE_MAX)
                await pause(stop, pause_s)
        finally:
            connection.terminate()

    async def _count(self, connection: Connection) -> float:
        began, now_ms = self._clock.monotonic(), self._clock.now_ms()
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        since = f"{now_ms - now_ms % DAY_MS - DAY_MS << 80:032x}"
        undecided = await connection.fetch(_SQL["undecided"], since, now - KNOWN_FOR)
        never_asked = await connection.fetchval(_SQL["never_asked"], since, now - KNOWN_FOR)
        oldest = await connection.fetch(_SQL["oldest"], since, now)
        self._found(
            Balance(
                {row["partition"]: row["undecided"] for row in undecided},
                never_asked,
                {row["stage"]: _age_s(row["since"], now) for row in oldest},
            )
        )
        self._counted_at = self._clock.monotonic()
        return self._counted_at - began


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
