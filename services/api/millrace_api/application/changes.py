"""A change of what is in force: made in one transaction, published by the relay, answered when it holds.

Each change locks its aggregate, takes the next version and writes the row and its outbox entry together. After the
commit the caller waits until this replica's control view has passed the entry: every matcher asks for the end of
`control` before it handles a batch, so whatever is published from then on meets the change. A wait that is too long
ends in NotYetInForce: the change stands all the same. Not here: the relay (`millrace_store.relay`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from millrace_api.application.database import Database
from millrace_api.application.problems import NotYetInForce, Unavailable
from millrace_api.application.sharing import Shared
from millrace_core import limits
from millrace_core.clock import Clock, utc_now
from millrace_core.errors import Retry
from millrace_store import outbox, queries
from millrace_store.outbox import Entry
from millrace_store.pool import Connection

_SQL = queries.load("api/positions")
POLL_S = 0.005
AWAY_S = 0.2

Name = tuple[str, str, str, int]
"""One version of one aggregate: kind, account, id, version."""


class View(Protocol):
    """This replica's view of `control`."""

    async def passed(self, position: int, *, timeout_s: float) -> None:
        """Returns when everything before `position` has been applied. Raises Retry when the time is over."""
        ...


@dataclass
class Change:
    """One open transaction that changes what is in force."""

    tx: Connection
    now: datetime
    entries: list[Entry] = field(default_factory=list)
    position: int | None = None
    """Behind the change on `control`, once it is in force."""

    async def publish(self, entry: Entry) -> None:
        """Send this version on its way when the transaction commits. The caller holds the aggregate's lock."""
        await outbox.append(self.tx, entry)
        self.entries.append(entry)


class Changes:
    """Opens changes, and sees them into force."""

    def __init__(
        self, database: Database, view: View, clock: Clock, *, wait_s: float = limits.IN_FORCE_WAIT_S_MAX
    ) -> None:
        self._database = database
        self._view = view
        self._clock = clock
        self._wait_s = wait_s
        self._pending: set[Name] = set()
        self._positions = Shared(self._ask, every_s=POLL_S)

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: asks for all open changes at once whether the relay has published them."""
        await self._positions.run(stop)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Change]:
        """Committed when the block ends well; then returns once it is in force. Raises NotYetInForce after 15 s."""
        now = utc_now(self._clock)
        async with self._database.writing() as tx:
            change = Change(tx, now)
            yield change
        if change.entries:
            change.position = await self._in_force(change.entries)

    async def _in_force(self, entries: Sequence[Entry]) -> int:
        deadline = self._clock.monotonic() + self._wait_s
        try:
            async with asyncio.timeout(self._wait_s):
                position = await self._published(entries)
            await self._view.passed(position, timeout_s=max(0.0, deadline - self._clock.monotonic()))
        except (TimeoutError, Retry):
            raise NotYetInForce(tuple(entry.id for entry in entries)) from None
        return position

    async def _published(self, entries: Sequence[Entry]) -> int:
        """The position behind the last of them, once the relay has given all of them one."""
        wanted = {_name(entry) for entry in entries}
        self._pending |= wanted
        try:
            while True:
                try:
                    found = await self._positions.get()
                except Unavailable:  # the change stands: only the answer can wait
                    await asyncio.sleep(AWAY_S)
                    continue
                if wanted <= found.keys():
                    return max(found[name] for name in wanted)
        finally:
            self._pending -= wanted

    async def _ask(self) -> Mapping[Name, int]:
        pending = list(self._pending)
        async with self._database.asking() as connection:
            rows = await connection.fetch(_SQL["published_positions"], *zip(*pending, strict=True))
        return {
            (row["kind"], row["account"], row["aggregate"], row["version"]): row["published_position"] for row in rows
        }


def _name(entry: Entry) -> Name:
    return entry.kind, entry.account, entry.id, entry.version
