"""The one thing the API does by the clock: end the grace period of rotated webhook secrets.

Every replica looks once a minute and takes what no other one has locked; a miss is made up a minute later.
"""

import asyncio

from structlog.typing import FilteringBoundLogger

from millrace_api.application import webhooks
from millrace_api.application.changes import Changes
from millrace_api.application.looking import keep_looking

EVERY_S = 60.0


class SecretRetirement:
    """A worker."""

    def __init__(self, changes: Changes, log: FilteringBoundLogger, *, every_s: float = EVERY_S) -> None:
        self._changes = changes
        self._log = log
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; a Postgres or log that is away only delays it."""
        await keep_looking(
            self._look,
            stop,
            every_s=self._every_s,
            delayed=lambda reason: self._log.warning("webhook.secrets.delayed", reason=reason),
        )

    async def _look(self) -> None:
        async with self._changes.begin() as change:
            ended = await webhooks.forget_old_secrets(change)
        if ended:
            self._log.info("webhook.secrets.retired", endpoints=ended)
