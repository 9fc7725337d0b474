"""The outbox: changes to what is in force, written in the transaction that makes them.

The API locks its aggregate, takes the next version and calls `append` before it commits; the relay does the rest.
Either both the change and its entry exist, or neither.
"""

from typing import NamedTuple

from millrace_store import queries
from millrace_store.pool import Connection

_SQL = queries.load("outbox")


class Entry(NamedTuple):
    """One version of one aggregate on its way to `control`. `value` None = deleted."""

    kind: str
    account: str
    id: str
    version: int
    value: bytes | None


async def append(connection: Connection, entry: Entry) -> None:
    """Add an entry to the caller's open transaction. The relay is woken when it commits.

    Raises asyncpg.UniqueViolationError when the version exists: the caller did not hold the aggregate's lock."""
    await connection.execute(_SQL["append_entry"], entry.kind, entry.account, entry.id, entry.version, entry.value)


async def unpublished(connection: Connection, limit: int) -> list[tuple[int, Entry]]:
    """The oldest entries without a position, versions of one aggregate in order."""
    rows = await connection.fetch(_SQL["unpublished_entries"], limit)
    return [
        (row["id"], Entry(row["kind"], row["account"], row["aggregate"], row["version"], row["value"])) for row in rows
    ]


async def mark_published(connection: Connection, ids: list[int], position: int) -> None:
    """Remember that these entries are on the log, before `position`. Safe to repeat."""
    await connection.execute(_SQL["mark_published"], ids, position)


async def count_unpublished(connection: Connection) -> int:
    """How many entries wait: for metrics."""
    count = await connection.fetchval(_SQL["count_unpublished"])
    return int(count)
