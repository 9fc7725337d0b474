"""A second set of read models beside the one in use, and the swap of the two: what a rebuild stands on.

The shadow is made by the migrations' own statements, with the schema's name changed, so it is right also where the
schema itself was dropped. The swap renames both schemas in one transaction, after it has made the old positions
worthless: a projector that waited for them moves nothing, finds that out, and reads the new ones.
Not here: reading the log (the projector's `rebuilding`).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from millrace_core.errors import Fatal, Stale
from millrace_store import queries
from millrace_store.days import DATED
from millrace_store.leading import take_lock
from millrace_store.migrations import packaged
from millrace_store.pool import Connection
from millrace_store.projection import Place

LIVE, SHADOW, OLD = "read", "read_rebuild", "read_old"
_LOCK = 0x726562756C640001  # "rebuld": any fixed number of its own
_SPEAKS_OF_LIVE = re.compile(r"\bSCHEMA read\b|\bread\.[a-z]")
_SQL = queries.load("shadow")


async def lock(connection: Connection) -> None:
    """Be the only rebuild, until the connection ends. Raises Fatal when another one runs."""
    if not await take_lock(connection, _LOCK):
        raise Fatal("another rebuild is running")


async def create(connection: Connection) -> None:
    """An empty shadow; what an earlier rebuild left is dropped."""
    await drop(connection, SHADOW)
    statements = {str(number): sql for number, sql in enumerate(_statements())}
    async with connection.transaction():
        for sql in queries.in_schema(statements, SHADOW).values():
            await connection.execute(re.sub(r"\bSCHEMA read\b", f"SCHEMA {SHADOW}", sql))


def _statements() -> list[str]:
    """Every statement of the migrations that speaks of the read models. Such statements hold no quoted body."""
    found = []
    for migration in packaged():
        bare = re.sub(r"(?m)^\s*--.*$", "", migration.sql)
        found += [sql.strip() for sql in re.split(r";[ \t]*(?:\n|$)", bare) if _SPEAKS_OF_LIVE.search(sql)]
    return found


async def drop(connection: Connection, schema: str) -> None:
    """Drop a schema, table by table: one transaction for all partitions would need more locks than a server has."""
    for table in await connection.fetch(_SQL["tables_of"], schema):
        await connection.execute(f'DROP TABLE IF EXISTS {schema}."{table["relname"]}" CASCADE')
    await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def exists(connection: Connection, schema: str = LIVE) -> bool:
    """Whether there is such a schema."""
    return bool(await connection.fetchval(_SQL["schema_exists"], schema))


async def keep_older(connection: Connection, before: Mapping[str, datetime]) -> dict[str, int]:
    """Copy the rows whose ids are from before the given moment, by table; answers how many. Done before the log is
    read: what it then says of them is merged, and says nothing new of rows that would not have needed copying."""
    kept = {}
    for table, moment in sorted(before.items()):
        column = DATED.get(table, "at")
        bound = moment if column == "at" else _first_id(moment)
        status = await connection.execute(
            f"INSERT INTO {SHADOW}.{table} SELECT * FROM {LIVE}.{table} WHERE {column} < $1 ON CONFLICT DO NOTHING",
            bound,
        )
        kept[table] = int(status.rpartition(" ")[2])
    if "event_outcomes" in before:
        await connection.execute(_SQL["keep_account_book"])  # facts may be gone before the records they speak of
    return kept


def _first_id(moment: datetime) -> str:
    milliseconds = int(moment.astimezone(UTC).timestamp() * 1000)
    return f"{milliseconds << 80:032x}"


async def analyze(connection: Connection) -> None:
    """Give the planner its statistics before anyone reads."""
    for table in await connection.fetch(_SQL["tables_of"], SHADOW):
        await connection.execute(f'ANALYZE {SHADOW}."{table["relname"]}"')


async def swap(connection: Connection) -> dict[Place, int]:
    """Put the shadow in the place of the live schema; answers the live positions it found. Raises Stale, changing
    nothing, when the shadow is behind them: readers would see the past. The old tables are dropped by `drop(OLD)`."""
    async with connection.transaction():
        live: dict[Place, int] = {}
        if await exists(connection, LIVE):
            rows = await connection.fetch(_SQL["take_live_positions"])
            live = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            behind = await connection.fetch(
                _SQL["behind_live"],
                [topic for topic, _ in live],
                [partition for _, partition in live],
                list(live.values()),
            )
            if behind:
                raise Stale(f"the shadow is behind on {len(behind)} partitions")
            await connection.execute(f"ALTER SCHEMA {LIVE} RENAME TO {OLD}")
        await connection.execute(f"ALTER SCHEMA {SHADOW} RENAME TO {LIVE}")
    return live
