"""The transactions of the API: one for each request, and none that waits for anything but Postgres.

A server that is away is the problem Unavailable, whatever the driver calls it. Not here: statements (`sql/api`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast

from millrace_api.application.problems import Unavailable
from millrace_core import limits
from millrace_store.pool import AWAY, Connection, Pool

Isolation = Literal["read_committed", "repeatable_read"]


class Database:
    """Gives connections inside a transaction, each for so long that a request may hold one. Then it is closed, and what
    was asked by it ends as Unavailable: a server that says nothing more holds nobody."""

    def __init__(self, pool: Pool, *, holds_s: float | None = limits.REQUEST_HOLDS_S_MAX) -> None:
        """`holds_s` None = as long as each statement may take."""
        self._pool = pool
        self._holds_s = holds_s

    @property
    def patient(self) -> "Database":
        """The same for workers and exports, which nobody waits for."""
        return Database(self._pool, holds_s=None)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """One view of everything, unchanged until the end."""
        async with self._transaction(isolation="repeatable_read", readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """Committed when the block ends well. Raises Unavailable when it may not have been."""
        async with self._transaction(isolation="read_committed", readonly=False) as connection:
            yield connection

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Connection]:
        """For one statement, which is a transaction of its own."""
        try:
            async with self._lent() as connection:
                yield connection
        except AWAY as error:
            raise _away(error) from error

    @asynccontextmanager
    async def _transaction(self, *, isolation: Isolation, readonly: bool) -> AsyncIterator[Connection]:
        try:
            async with self._lent() as lent, lent.transaction(isolation=isolation, readonly=readonly):
                yield lent
        except AWAY as error:
            raise _away(error) from error

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Connection]:
        async with self._pool.acquire(timeout=limits.POOL_WAIT_S_MAX) as lent:
            if self._holds_s is None:
                yield _connection(lent)
                return
            end = asyncio.get_running_loop().call_later(self._holds_s, lent.terminate)
            try:
                yield _connection(lent)
            finally:
                end.cancel()


def _connection(lent: object) -> Connection:
    """The pool lends a proxy that does all a connection does."""
    return cast(Connection, lent)


def _away(error: BaseException) -> Unavailable:
    # The driver's text may name hosts and users: it stays in the cause.
    return Unavailable("Postgres cannot be reached right now: nothing is known to have changed. Try again shortly.")
