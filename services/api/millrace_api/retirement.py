"""The one thing the API does by the clock: end the grace period of rotated webhook secrets.

Every replica looks once a minute and takes what no other one has locked; a miss is made up a minute later.
"""

import asyncio

from structlog.typing import FilteringBoundLogger

from millrace_api.application import webhooks
from millrace_api.application.changes import Changes
from millrace_api.application.problems import Problem
from millrace_core.restart import pause

EVERY_S = 60.0


class SecretRetirement:
    """A worker."""

    def __init__(self, changes: Changes, log: FilteringBoundLogger, *, every_s: float = EVERY_S) -> None:
        self._changes = changes
        self._log = log
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; a Postgres or log that is away only delays it."""
        while not stop.is_set():
            try:
                async with self._changes.begin() as change:
                    ended = await webhooks.forget_old_secrets(change)
                if ended:
                    self._log.info("webhook.secrets.retired", endpoints=ended)
            except Problem as problem:
                self._log.warning("webhook.secrets.delayed", reason=str(problem))
            await pause(stop, self._every_s)
