"""When keys were last used: gathered in memory, written once a minute, each key once.

What a replica gathered and had not written when it died is lost: the time shown is good to a minute, and says nothing
of requests to the gateway, which tells nobody. Not here: the statement (`application.keys`).
"""

import asyncio
from datetime import datetime

from millrace_api.application import keys
from millrace_api.application.database import Database
from millrace_api.application.problems import Problem
from millrace_core import limits
from millrace_core.clock import Clock, utc_now
from millrace_core.restart import pause
from millrace_web.api_keys import ApiKey


class KeyUses:
    """Told of each request, and a worker. Of more than `KEY_USES_MAX` keys in a minute some are not noted."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: dict[tuple[str, str], datetime] = {}

    def note(self, key: ApiKey) -> None:
        """This key was just used. Never blocks."""
        at = key.account, key.id
        if at in self._seen or len(self._seen) < limits.KEY_USES_MAX:
            self._seen[at] = utc_now(self._clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and once more then."""
        while not stop.is_set():
            await pause(stop, limits.KEY_USES_WRITTEN_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what was gathered. Safe to repeat; a Postgres that is away only delays it."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        try:
            async with self._database.asking() as connection:
                await keys.used(connection, seen)
        except Problem:
            self._seen = seen | self._seen
