"""How much waits in the outbox and among the replays, and since when: for the metrics of every replica, whichever works
them off."""

import asyncio

from millrace_api.application.database import Database
from millrace_api.application.problems import Unavailable
from millrace_core.clock import Clock, utc_now
from millrace_core.restart import pause
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_store import queries
from millrace_store.pool import Connection

EVERY_S = 5.0
_OUTBOX = queries.load("api/positions")["waiting"]
_REPLAYS = queries.load("api/replays")["live_by_state"]


class BacklogWatch:
    """A worker. While Postgres is away the last figures stand."""

    def __init__(self, database: Database, metrics: Metrics, *, clock: Clock, every_s: float = EVERY_S) -> None:
        self._database = database
        self._entries = metrics.gauge(metric_defs.RELAY_WAITING)
        self._entries_age = metrics.gauge(metric_defs.RELAY_OLDEST_AGE_SECONDS)
        self._replays = metrics.gauge(metric_defs.REPLAYS_LIVE)
        self._replays_age = metrics.gauge(metric_defs.REPLAY_OLDEST_AGE_SECONDS)
        self._clock = clock
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            try:
                async with self._database.asking() as connection:
                    await self._look(connection)
            except Unavailable:
                pass
            await pause(stop, self._every_s)

    async def _look(self, connection: Connection) -> None:
        outbox = await connection.fetchrow(_OUTBOX)
        replays = await connection.fetchrow(_REPLAYS, utc_now(self._clock))
        assert outbox is not None
        assert replays is not None
        self._entries.set(outbox["entries"])
        self._entries_age.set(outbox["oldest_age_s"])
        for state in ("waiting", "running"):
            self._replays.labels(state).set(replays[state])
        self._replays_age.set(replays["oldest_age_s"])
