"""Tells the log of confirmations: that somebody was asked, what he said, and after a yes the call itself.

The row is committed first, without waiting for the log; what is told of it follows from the row, under ids derived from
it, so that it may be told again after a crash, and counts once. A yes is told for as long as the log tells a second
command from the first. Not here: who may say yes (`action_calls`).
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from millrace_api.application import action_calls
from millrace_api.application.action_calls import Owed
from millrace_api.application.database import Database
from millrace_api.application.keys import KeyMaker
from millrace_api.application.looking import keep_looking
from millrace_api.application.problems import BeingChanged, Conflict, Problem
from millrace_api.application.runs import Log, Place
from millrace_core import limits
from millrace_core.clock import Clock, utc_now

# A request that is under way tells of its card by itself.
LEFT_TO_THEIR_REQUEST = timedelta(seconds=2 * limits.PRODUCE_TIMEOUT_S)


class Cards:
    """A worker, and what a request calls for its own card. A Postgres or log that is away only delays it. Every replica
    looks."""

    def __init__(
        self, database: Database, *, records: Log, maker: KeyMaker, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self._database = database
        self._records = records
        self._maker = maker
        self._clock = clock
        self._log = log

    async def now(self, account: str, id: str) -> Place | None:
        """Tell of a card that was just made or decided, and say where that stands. None when the log is away: the
        worker makes up for it. Raises Conflict when a yes comes to nothing: what was asked is another thing by now."""
        try:
            owed, place = await self._tell(account, id)
        except Problem as problem:
            self._log.warning("confirmation.untold", account=account, confirmation=id, reason=str(problem))
            return None
        if owed.is_void:
            raise Conflict("The action's contract has changed since this was confirmed: ask for the action again.")
        return place

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        await keep_looking(
            self.look,
            stop,
            every_s=limits.CONFIRMATIONS_LOOKED_AT_EVERY_S,
            delayed=lambda reason: self._log.warning("confirmations.delayed", reason=reason),
        )

    async def look(self) -> None:
        """Tell of those that nobody told of. Safe to repeat."""
        before = utc_now(self._clock) - LEFT_TO_THEIR_REQUEST
        async with self._database.asking() as connection:
            untold = await action_calls.untold(connection, before=before, count=limits.CONFIRMATIONS_TOLD_AT_ONCE_MAX)
        for account, id in untold:
            with suppress(BeingChanged):  # its turn comes again
                await self._tell(account, id)

    async def _tell(self, account: str, id: str) -> tuple[Owed, Place]:
        async with self._database.reading() as tx:
            owed = await action_calls.owed(tx, account, id, maker=self._maker, now=utc_now(self._clock))
        place = await action_calls.tell(self._records, owed)
        async with self._database.asking() as connection:
            await action_calls.told(connection, owed)
        if owed.is_void:
            self._log.warning("confirmation.void", account=account, confirmation=id)
        return owed, place
