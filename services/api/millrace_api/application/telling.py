"""Writes the events of submissions whose request could not: the log was away, or the process ended in between.

Every replica looks: an event written twice is one, since its uniqueKey is the submission's id. Not here: the rows and
the events (`application.forms`).
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from millrace_api.application import forms
from millrace_api.application.database import Database
from millrace_api.application.looking import keep_looking
from millrace_api.application.problems import Problem
from millrace_api.application.runs import Log, Place
from millrace_core import limits
from millrace_core.clock import Clock, utc_now
from millrace_core.errors import Retry
from millrace_core.event import to_output
from millrace_core.messages import Event

SURFACE = "platform"
# A request that is under way tells of it by itself.
LEFT_TO_THEIR_REQUEST = timedelta(seconds=2 * limits.PRODUCE_TIMEOUT_S)


class Telling:
    """A worker, and what a request calls for its own event. A Postgres or log that is away only delays it."""

    def __init__(self, database: Database, *, events: Log, clock: Clock, log: FilteringBoundLogger) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._log = log

    async def now(self, event: Event) -> Place | None:
        """Write the event of a submission that was just committed, and say where it stands. None when the log is away:
        the worker makes up for it."""
        try:
            return (await self._tell([event]))[0]
        except (Problem, Retry) as problem:
            self._log.warning("submission.untold", event_id=event.id, reason=str(problem))
            return None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        await keep_looking(
            self.look,
            stop,
            every_s=limits.SUBMISSIONS_LOOKED_AT_EVERY_S,
            delayed=lambda reason: self._log.warning("submissions.delayed", reason=reason),
        )

    async def look(self) -> None:
        """Tell of those that nobody told of. Safe to repeat."""
        before = utc_now(self._clock) - LEFT_TO_THEIR_REQUEST
        async with self._database.asking() as connection:
            untold = await forms.untold(connection, before=before, count=limits.SUBMISSIONS_TOLD_AT_ONCE_MAX)
        if untold:
            await self._tell(untold)

    async def _tell(self, events: list[Event]) -> Sequence[Place]:
        places = await self._events.write([to_output(event, surface=SURFACE) for event in events])
        for event in events:
            async with self._database.asking() as connection:
                await forms.told(connection, event, utc_now(self._clock))
        return places
