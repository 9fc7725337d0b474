"""Nonces of signed requests: each is taken once, whichever replica it comes to.

A nonce is remembered as long as its request holds; after that the request is refused for its age. Each that is spent
takes a few with it whose time is over, so there are never many more than were used in the last ten minutes. Not here:
signatures (`millrace_web.signed_requests`).
"""

from datetime import UTC, datetime

from millrace_api.application.database import Database
from millrace_core import limits
from millrace_core.clock import Clock, utc_now
from millrace_core.request_signing import Signed
from millrace_store import queries
from millrace_web.api_keys import ApiKey

_SQL = queries.load("api/nonces")


class SpentNonces:
    """The nonces in Postgres. Raises Unavailable when it is away: nobody could say whether a request came before."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def spend(self, key: ApiKey, signed: Signed) -> bool:
        """Whether this is the first time that the key uses this nonce, within the time that the request holds."""
        until = datetime.fromtimestamp(signed.valid_until_s, UTC)
        async with self._database.asking() as connection:
            row = await connection.fetchrow(
                _SQL["spend"],
                key.account,
                key.id,
                signed.nonce,
                until,
                utc_now(self._clock),
                limits.NONCES_FORGOTTEN_AT_ONCE,
            )
        return row is not None
