"""All that a surface needs to answer a request, in one object that the composition root makes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from millrace_api.application.arrivals import Arrivals
from millrace_api.application.backtests import Backtests
from millrace_api.application.calling import Outside
from millrace_api.application.cards import Cards
from millrace_api.application.changes import Changes
from millrace_api.application.connecting import Connecting
from millrace_api.application.database import Database
from millrace_api.application.keys import KeyMaker
from millrace_api.application.problems import NoSuchId, NotFound
from millrace_api.application.runs import Log
from millrace_api.application.telling import Telling
from millrace_core.clock import Clock
from millrace_core.egress import Network
from millrace_core.intents import Rewording
from millrace_store.pool import Connection
from millrace_web.rate_limits import RateLimits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Api:
    """Shared by every request."""

    database: Database
    changes: Changes
    arrivals: Arrivals
    backtests: Backtests
    log: Log
    telling: Telling
    cards: Cards
    keys: KeyMaker
    clock: Clock
    retention_days_max: int
    outside: Outside
    connecting: Connecting
    egress: Sequence[Network] = ()
    sign_ups: RateLimits | None = None
    """How often anyone may sign up; None = nobody may."""
    rewording: Rewording | None = None
    """Puts prompts in plainer words where the rules do not understand them."""

    async def found(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        """What `read` finds in the read models. What is not there is looked for again when they hold all that was on
        the log at this moment, or after 2 s; then NotFound."""
        try:
            async with self.database.reading() as tx:
                return await read(tx)
        except NoSuchId:
            raise
        except NotFound:
            await self.arrivals.caught_up()
        async with self.database.reading() as tx:
            return await read(tx)
