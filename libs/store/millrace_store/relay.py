"""The relay: carries the outbox to the `control` topic. One works at a time, whichever holds the lock (`leading`).

At least once, and never old over new: (1) a session advisory lock on a direct connection chooses the relay; (2) only
then is the writer started, whose fixed transactional id fences every earlier one, so a relay that was frozen with old
entries in hand cannot put them behind newer ones; (3) entries without a position are published, oldest first, then
marked. A crash between publishing and marking repeats the entries; readers ignore a version they have had.
The server ends the session when it says nothing for `RELAY_SESSION_S`: a frozen relay loses the lock by that.
Not here: how entries become records (`millrace_kafka.control_log` implements ControlLog).
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from millrace_core import limits
from millrace_core.errors import Reject, Stale
from millrace_core.restart import pause
from millrace_store import outbox
from millrace_store.leading import Leader
from millrace_store.outbox import Entry
from millrace_store.pool import Connection, connect

_LOCK = 0x6D696C6C72656C79  # "millrely": any fixed number, other than the migrations'
CHANNEL = "control_outbox"


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
        self._writer = writer
        self._wake = asyncio.Event()
        self._leader = Leader(
            partial(connect, dsn, name=name, idle_s=limits.RELAY_SESSION_S),
            lock=_LOCK,
            work=self._publish,
            # Stale: another relay has fenced this one. Reject: an entry that cannot be written holds up all behind it,
            # loudly.
            again=(Stale, Reject),
        )

    def ready(self) -> str | None:
        """None while this relay publishes or another one holds the lock; else why nothing is known to move."""
        return self._leader.ready()

    @property
    def is_publishing(self) -> bool:
        return self._leader.is_working

    async def run(self, stop: asyncio.Event) -> None:
        """The worker."""
        await self._leader.run(stop)

    async def _publish(self, connection: Connection, stop: asyncio.Event) -> None:
        await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
        writer = self._writer()
        try:
            await writer.start()
            while not stop.is_set():
                self._wake.clear()
                has_more = await self._publish_batch(connection, writer)
                self._leader.moved()
                if not has_more:
                    await pause(self._wake, limits.RELAY_POLL_S)
        finally:
            await writer.stop()

    async def _publish_batch(self, connection: Connection, writer: ControlLog) -> bool:
        """One batch; True when there may be more."""
        batch = await outbox.unpublished(connection, limits.RELAY_BATCH_ENTRIES_MAX)
        if not batch:
            return False
        position = await writer.write([entry for _, entry in batch])
        await outbox.mark_published(connection, [id for id, _ in batch], position)
        return len(batch) == limits.RELAY_BATCH_ENTRIES_MAX
