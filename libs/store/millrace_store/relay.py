"""The relay: carries the outbox to the `control` topic. One works at a time, whichever holds the lock.

At least once, and never old over new: (1) a session advisory lock on a direct connection chooses the relay; (2) only
then is the writer started, whose fixed transactional id fences every earlier one, so a relay that was frozen with old
entries in hand cannot put them behind newer ones; (3) entries without a position are published, oldest first, then
marked. A crash between publishing and marking repeats the entries; readers ignore a version they have had.
The server ends the session when it says nothing for `RELAY_SESSION_S`: a frozen relay loses the lock by that.
Not here: how entries become records (`millrace_kafka.control_log` implements ControlLog).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from millrace_core import limits
from millrace_core.errors import Reject, Retry, Stale
from millrace_store import outbox, queries
from millrace_store.outbox import Entry
from millrace_store.pool import AWAY, Connection, connect

_SQL = queries.load("relay")
_LOCK = 0x6D696C6C72656C79  # "millrely": any fixed number, other than the migrations'
CHANNEL = "control_outbox"
# Stale: another relay has fenced this one. Reject: an entry that cannot be written holds up all behind it, loudly.
_AGAIN: tuple[type[Exception], ...] = (Retry, Stale, Reject, *AWAY)


class ControlLog(Protocol):
    """The writer of `control`, made anew for each life of the relay."""

    async def start(self) -> None:
        """Fence every earlier writer. Raises Retry when the broker is away."""
        ...

    async def write(self, entries: Sequence[Entry]) -> int:
        """Append all entries in order, or none; answers the position behind the last. Raises Retry when the outcome is
        unknown, Stale when another writer has fenced this one; it is not used again after either."""
        ...

    async def stop(self) -> None: ...


class Relay:
    """Runs until told to stop; survives the loss of Postgres, of the broker and of the lock."""

    def __init__(self, dsn: str, *, writer: Callable[[], ControlLog], name: str = "millrace relay") -> None:
        self._dsn = dsn
        self._writer = writer
        self._name = name
        self._state = "not started"
        self._wake = asyncio.Event()

    def ready(self) -> str | None:
        """None while this relay publishes or another one holds the lock; else why nothing is known to move."""
        return None if self._state in ("publishing", "standing by") else self._state

    @property
    def is_publishing(self) -> bool:
        return self._state == "publishing"

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: live, and after any failure live again, until `stop`."""
        failures = 0
        while not stop.is_set():
            try:
                await self._live(stop)
                failures = 0
            except _AGAIN as error:
                self._state = f"starting anew: {str(error) or type(error).__name__}"
                pause = limits.RESTART_BACKOFF_S[min(failures, len(limits.RESTART_BACKOFF_S) - 1)]
                failures += 1
                await self._stopped_within(stop, pause)

    async def _live(self, stop: asyncio.Event) -> None:
        connection = await connect(self._dsn, name=self._name, idle_s=limits.RELAY_SESSION_S)
        try:
            if await self._take_lock(connection, stop):
                await self._publish(connection, stop)
        finally:
            connection.terminate()  # a polite close would wait for a server that may be frozen

    async def _take_lock(self, connection: Connection, stop: asyncio.Event) -> bool:
        while not stop.is_set():
            if await connection.fetchval(_SQL["take_lock"], _LOCK):
                return True
            self._state = "standing by"
            await self._stopped_within(stop, limits.RELAY_LOCK_POLL_S)
        return False

    async def _publish(self, connection: Connection, stop: asyncio.Event) -> None:
        await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
        writer = self._writer()
        try:
            await writer.start()
            self._state = "publishing"
            while not stop.is_set():
                self._wake.clear()
                while await self._publish_batch(connection, writer):
                    pass
                await self._woken_within(limits.RELAY_POLL_S)
        finally:
            self._state = "stopped"
            await writer.stop()

    async def _publish_batch(self, connection: Connection, writer: ControlLog) -> bool:
        """One batch; True when there may be more."""
        batch = await outbox.unpublished(connection, limits.RELAY_BATCH_ENTRIES_MAX)
        if not batch:
            return False
        position = await writer.write([entry for _, entry in batch])
        await outbox.mark_published(connection, [id for id, _ in batch], position)
        return len(batch) == limits.RELAY_BATCH_ENTRIES_MAX

    async def _woken_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _stopped_within(self, stop: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            pass
