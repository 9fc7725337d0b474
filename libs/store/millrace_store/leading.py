"""The life of a worker of which one works at a time: connect, wait for the lock, work, and after any failure anew.

A session advisory lock on a direct connection chooses it. Where the connection is opened with `idle_s`, the server ends
a session that says nothing for so long: a frozen worker loses the lock by that. It may wake and go on for a moment
beside the next one; its work must make that harmless (a fence, a compare and set).
Not here: the work.
"""

import asyncio
from collections.abc import Awaitable, Callable

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.restart import backoff_s, pause
from millrace_store import queries
from millrace_store.pool import AWAY, Connection

_SQL = queries.load("leading")
_WORKING = "working"
_STANDING_BY = "standing by"

Work = Callable[[Connection, asyncio.Event], Awaitable[None]]
"""Done until the event is set, on the connection that holds the lock. Told to the leader (`moved`) when it came on."""


class Leader:
    """Runs until told to stop; survives the loss of Postgres, of the lock, and what else its work names as `again`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        lock: int,
        work: Work,
        again: tuple[type[Exception], ...] = (),
        delayed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`lock` is any fixed number of its own; `delayed` hears why a life ended before its time."""
        self._connect = connect
        self._lock = lock
        self._work = work
        self._again: tuple[type[Exception], ...] = (Retry, *AWAY, *again)
        self._delayed = delayed
        self._state = "not started"
        self._failures = 0

    def ready(self) -> str | None:
        """None while the work comes on or another one holds the lock; else why nothing is known to move."""
        return None if self._state in (_WORKING, _STANDING_BY) else self._state

    @property
    def is_working(self) -> bool:
        return self._state == _WORKING

    def moved(self) -> None:
        """Told by the work each time that it came on."""
        self._state = _WORKING
        self._failures = 0

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: live, and after any failure live again, until `stop`."""
        while not stop.is_set():
            try:
                await self._live(stop)
            except self._again as error:
                reason = str(error) or type(error).__name__
                self._state = f"starting anew: {reason}"
                self._delayed(reason)
                await pause(stop, backoff_s(self._failures))
                self._failures += 1

    async def _live(self, stop: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            if await self._chosen(connection, stop):
                await self._work(connection, stop)
        finally:
            self._state = "stopped"
            connection.terminate()  # a polite close would wait for a server that may be frozen

    async def _chosen(self, connection: Connection, stop: asyncio.Event) -> bool:
        while not stop.is_set():
            if await take_lock(connection, self._lock):
                return True
            self._state = _STANDING_BY
            await pause(stop, limits.RELAY_LOCK_POLL_S)
        return False


async def take_lock(connection: Connection, lock: int) -> bool:
    """Hold this advisory lock until the connection ends; False when another session does."""
    return bool(await connection.fetchval(_SQL["take_lock"], lock))
