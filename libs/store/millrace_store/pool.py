"""Connections to Postgres, every one of them bounded. The only place that opens any.

A statement that runs away is ended by the server, a transaction left open too, and a peer that vanished is noticed by
keepalives. Pools never grow past their bound: who takes a connection says how long it waits for one.
Not here: what is asked (`queries`), and retrying (the loops know what can be asked again).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from millrace_core import limits
from millrace_core.errors import Retry

Pool = asyncpg.Pool
Connection = asyncpg.Connection

# What the driver raises when the server is away, starting, stopping, or has thrown the session out: the same statement
# may succeed later. Everything else it raises is about the statement itself.
AWAY: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection whose last statement was cut off half way
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    # The schema is not there yet, or is being made anew: `millrace migrate` or `millrace rebuild` will end that.
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
)

# The statement waited too long for a lock, or took too long: it is another's turn, and ours comes again.
BUSY: tuple[type[Exception], ...] = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
)


def _server_settings(name: str, *, statement_s: float, idle_s: float | None) -> dict[str, str]:
    settings = {
        "application_name": name,
        "statement_timeout": str(int(statement_s * 1000)),
        "idle_in_transaction_session_timeout": str(int(limits.STATEMENT_S_MAX * 1000)),
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "timezone": "UTC",
        "jit": "off",  # every query here is short: planning it with LLVM costs more than it saves
    }
    if idle_s is not None:
        settings["idle_session_timeout"] = str(int(idle_s * 1000))
    return settings


@asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    name: str,
    connections_max: int = limits.POOL_CONNECTIONS_MAX,
    statement_s: float = limits.STATEMENT_S_MAX,
    connections_min: int = 0,
) -> AsyncIterator[Pool]:
    """A pool for the life of the block. `name` is what `pg_stat_activity` shows.

    Opens nothing by itself (`connections_min` 0), so that a service starts while Postgres is away; what it then asks
    raises one of `AWAY`."""
    pool = asyncpg.create_pool(
        dsn,
        min_size=connections_min,
        max_size=connections_max,
        timeout=limits.CONNECT_S_MAX,
        command_timeout=statement_s + 5.0,  # the server's own limit speaks first; this one is for a frozen server
        max_inactive_connection_lifetime=300.0,
        # Lists are narrowed by what may be null and cut to the days that are kept: a plan made for all values at once
        # would read far too much, whatever the planner thinks of its cost.
        server_settings=_server_settings(name, statement_s=statement_s, idle_s=None)
        | {"plan_cache_mode": "force_custom_plan"},
    )
    await pool
    try:
        yield pool
    finally:
        await _close(pool)


async def _close(pool: Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), limits.CONNECT_S_MAX)
    except AWAY:
        pool.terminate()


async def connect(
    dsn: str, *, name: str, statement_s: float = limits.STATEMENT_S_MAX, idle_s: float | None = None
) -> Connection:
    """One direct connection, for what belongs to a session (advisory locks, LISTEN, a rebuild). Raises Retry when the
    server is away. With `idle_s` the server ends the session when it says nothing for so long: the way to take a lock
    from a frozen holder, whose kernel still answers keepalives."""
    try:
        return await asyncpg.connect(
            dsn,
            timeout=limits.CONNECT_S_MAX,
            command_timeout=statement_s + 5.0 if statement_s else None,
            server_settings=_server_settings(name, statement_s=statement_s, idle_s=idle_s),
        )
    except AWAY as error:
        raise Retry(f"Postgres is away: {str(error) or type(error).__name__}") from error
