"""What is stored of the receipt chain, for whoever closes a day or verifies it; and a day's facts, sorted.

A day may hold more facts than memory does, so Postgres sorts them, in a temporary table that ends with the session.
Not here: how trees are built (`millrace_core.receipts`), and the rows themselves (the projector writes them).
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from millrace_store import leading, queries
from millrace_store.aggregates import ms
from millrace_store.pool import Connection
from millrace_store.projection import Place

_LOCK = 0x7265636569707401  # "receipt": any fixed number of its own
_SQL = queries.load("receipts")
PAGE_FACTS = 1_000
CONTRADICTIONS_MAX = 20


@dataclass(frozen=True, slots=True)
class ClosedDay:
    """The latest day that is closed, by its start, and where the next one begins on the log."""

    day: int
    ends: Mapping[Place, int]


@dataclass(frozen=True, slots=True)
class StoredRoot:
    """A root as the read models have it."""

    leaves: int
    root: bytes
    previous: bytes
    chain: bytes


async def take_lock(connection: Connection) -> bool:
    """Be the only one who closes days, until the connection ends; False when another one does."""
    return await leading.take_lock(connection, _LOCK)


async def seed(connection: Connection) -> bytes | None:
    """What salts follow from; None while there is none."""
    found: bytes | None = await connection.fetchval(_SQL["seed"])
    return found


async def last_closed(connection: Connection) -> ClosedDay | None:
    """The latest day that is closed; None while there is none."""
    row = await connection.fetchrow(_SQL["last_day"])
    if row is None:
        return None
    ends = {(topic, partition): offset for topic, partition, offset in json.loads(row["ends"])}
    return ClosedDay(ms(row["day"]), ends)


async def chain_before(connection: Connection, account: str, day: int) -> bytes | None:
    """The chain of the account's last day before this one; None where this one is its first."""
    found: bytes | None = await connection.fetchval(_SQL["chain_before"], account, moment(day))
    return found


async def contradictions(connection: Connection) -> list[tuple[str, int]]:
    """Accounts and days of which the log has two roots; the first few."""
    rows = await connection.fetch(_SQL["contradictions"], CONTRADICTIONS_MAX)
    return [(row["account"], ms(row["day"])) for row in rows]


async def roots_of_day(connection: Connection, day: int, account: str | None) -> dict[str, StoredRoot]:
    """The stored roots of a day by account; of one account alone where one is given."""
    rows = await connection.fetch(_SQL["roots_of_day"], moment(day), account)
    return {row["account"]: StoredRoot(row["leaves"], row["root"], row["previous"], row["chain"]) for row in rows}


async def chunk(connection: Connection, account: str, day: int, first: int) -> tuple[bytes, bytes] | None:
    """Entries and root of a stored chunk; None when it is not there."""
    row = await connection.fetchrow(_SQL["chunk"], account, moment(day), first)
    return None if row is None else (row["entries"], row["root"])


def moment(day: int) -> datetime:
    """A day's start as a column has it."""
    return datetime.fromtimestamp(day / 1000, UTC)


class SortedFacts:
    """The facts of one day: `begin`, `add` until all are there, `pages`, `end`. Of the copies of a fact, which stand in
    one partition, the one with the least offset comes first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def begin(self) -> None:
        """With none; what an earlier use left is forgotten."""
        await self.end()
        await self._connection.execute(
            'CREATE TEMPORARY TABLE day_facts (account bytea, id bytea, "offset" bigint, entry bytea)'
        )

    async def end(self) -> None:
        """Give the space back. Safe to repeat."""
        await self._connection.execute("DROP TABLE IF EXISTS pg_temp.day_facts")

    async def add(self, facts: Iterable[tuple[bytes, bytes, int, bytes]]) -> None:
        """Take (account, id, offset, entry)."""
        await self._connection.copy_records_to_table("day_facts", records=facts)

    async def pages(self) -> AsyncIterator[Sequence[tuple[bytes, bytes]]]:
        """All of them as (account, entry), by account and id."""
        await self._connection.execute('CREATE INDEX ON day_facts (account, id, "offset"); ANALYZE day_facts')
        last = b"", b""
        while rows := await self._connection.fetch(
            "SELECT account, id, entry FROM day_facts WHERE (account, id) > ($1, $2) "
            'ORDER BY account, id, "offset" LIMIT $3',
            *last,
            PAGE_FACTS,
        ):
            yield [(row["account"], row["entry"]) for row in rows]
            last = rows[-1]["account"], rows[-1]["id"]
