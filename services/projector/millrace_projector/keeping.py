"""The days of the read models, looked after: made before they begin, dropped when no account is shown them any more.

Every projector looks once a minute and says what it sees; one of them, whichever holds the lock, makes and drops. A day
is due when it lies behind the retention of every account, by the clock of Postgres, which hides it from clients too.
It goes whole, by dropping its partitions, and only when all of it is over: a run or delivery that goes on, or an event
that was never decided, keeps its whole day, however old. None goes while the keeper's own projector has records left to
project: they may speak of it.
A turn that fails is made up by the next one, after days without Postgres too, and nobody waits for it: rows of a day
without a partition go to the default one, and from there to their partition when it is made.
Not here: what a client is shown (`control.kept_since`, in every statement of the API).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_core.ids import DAY_MS
from millrace_core.restart import pause
from millrace_store import days
from millrace_store.days import DATED, Days
from millrace_store.leading import take_lock
from millrace_store.pool import AWAY, BUSY, Connection

SHARE_MAX = 0.05
_AGAIN: tuple[type[Exception], ...] = (Retry, *AWAY)
_LOCK = 0x6B65657064617901  # "keepday": any fixed number of its own


@dataclass(frozen=True, slots=True)
class Seen:
    """What is on disk, in days: `kept`, those `ahead` of today, those `due` to be dropped. The oldest began
    `oldest_age_s` ago; 0 = there is none."""

    kept: int
    ahead: int
    due: int
    oldest_age_s: float


class Keeper:
    """Looks after the days until told to stop. `is_behind` says whether the projector has something left to project;
    `failed` is told of a day that could not be `made` or `dropped` now."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        is_behind: Callable[[], bool],
        seen: Callable[[Seen], None],
        failed: Callable[[str], None],
        clock: Clock,
        log: FilteringBoundLogger,
        every_s: float = limits.DAYS_KEPT_EVERY_S,
    ) -> None:
        self._connect = connect
        self._is_behind = is_behind
        self._seen = seen
        self._failed = failed
        self._clock = clock
        self._log = log
        self._every_s = every_s
        self._held: dict[int, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """The worker. Postgres away only means that nothing is made or dropped meanwhile."""
        while not stop.is_set():
            try:
                await self._keep_on(stop)
            except _AGAIN as error:
                self._log.warning("days.delayed", reason=str(error) or type(error).__name__)
            await pause(stop, self._every_s)

    async def _keep_on(self, stop: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            while not stop.is_set():
                began = self._clock.monotonic()
                await self.turn(connection)
                await pause(stop, max(self._every_s, (self._clock.monotonic() - began) / SHARE_MAX))
        finally:
            connection.terminate()

    async def turn(self, connection: Connection) -> None:
        """Look, and do what is to be done if it is this keeper's to do. Safe to repeat."""
        today = self._clock.now_ms() // DAY_MS
        oldest = await days.first_shown(connection)
        there = await days.look(connection)
        if await take_lock(connection, _LOCK):
            await self._make(connection, there, oldest, today)
            if not self._is_behind():
                await self._drop(connection, there, oldest)
            there = await days.look(connection)
        self._seen(self._counted(there, oldest, today))

    async def _make(self, connection: Connection, there: Days, oldest: int, today: int) -> None:
        last = today + limits.PARTITION_DAYS_AHEAD
        wanted = set(range(today, last + 1)) | {day for day in there.strays if oldest <= day <= last}
        for day in sorted(wanted - await days.dropped(connection, wanted)):
            if len(there.attached.get(day, ())) == len(DATED):
                continue
            try:
                await days.make(connection, [day], adopt=True)
            except BUSY as error:
                self._delayed("made", day, error)

    async def _drop(self, connection: Connection, there: Days, oldest: int) -> None:
        everything = there.attached.keys() | there.detached.keys() | there.strays
        begun = await days.dropped(connection, everything)
        gone = 0
        for day in sorted(begun | {day for day in everything if day < oldest}):
            if gone == limits.DAYS_DROPPED_A_TURN_MAX:
                return
            if day not in begun and (what := await days.unfinished(connection, day)) is not None:
                if self._held.get(day) != what:
                    self._held[day] = what
                    self._log.info("day.held", day=days.name_of(day), by=what)
                continue
            try:
                await days.drop(connection, day, there)
            except BUSY as error:
                self._delayed("dropped", day, error)
            else:
                gone += 1
                self._held.pop(day, None)
                self._log.info("day.dropped", day=days.name_of(day))

    def _delayed(self, what: str, day: int, error: Exception) -> None:
        self._failed(what)
        self._log.warning("day.delayed", day=days.name_of(day), what=what, reason=str(error))

    def _counted(self, there: Days, oldest: int, today: int) -> Seen:
        due = sum(day < oldest for day in there.attached)
        ahead = sum(day > today for day in there.attached)
        first = min((day for day in there.attached if day <= today), default=None)
        age_s = 0.0 if first is None else self._clock.now_ms() / 1000 - first * DAY_MS / 1000
        return Seen(len(there.attached) - ahead - due, ahead, due, age_s)
