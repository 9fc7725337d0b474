"""How much waits in the outbox, and since when: for the metrics of every replica, whichever holds the relay."""

import asyncio

from millrace_api.application.database import Database
from millrace_api.application.problems import Unavailable
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_store import queries

EVERY_S = 5.0
_SQL = queries.load("api/positions")


class OutboxWatch:
    """A worker. While Postgres is away the last figures stand."""

    def __init__(self, database: Database, metrics: Metrics, *, every_s: float = EVERY_S) -> None:
        self._database = database
        self._entries = metrics.gauge(metric_defs.RELAY_WAITING)
        self._age = metrics.gauge(metric_defs.RELAY_OLDEST_AGE_SECONDS)
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            try:
                async with self._database.asking() as connection:
                    row = await connection.fetchrow(_SQL["waiting"])
            except Unavailable:
                row = None
            if row is not None:
                self._entries.set(row["entries"])
                self._age.set(row["oldest_age_s"])
            try:
                async with asyncio.timeout(self._every_s):
                    await stop.wait()
            except TimeoutError:
                pass
