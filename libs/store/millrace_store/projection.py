"""How the projector writes: positions by compare and set, rows by COPY, day partitions made on demand.

Rows and positions commit in one transaction whose first statement moves the positions from what the writer expects; a
writer that no longer owns them moves none and must roll back. Everything is addressed to one schema (`read`, or the
shadow of a rebuild). Not here: what the rows say (the projector's handlers), retrying.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import asyncpg

from millrace_core import limits
from millrace_core.errors import Stale
from millrace_store import queries
from millrace_store.pool import Connection

Place = tuple[str, int]
"""A partition: catalogue name of its topic, and its number."""

PARTITIONED = (
    "events",
    "event_outcomes",
    "event_matches",
    "runs",
    "steps",
    "step_attempts",
    "deliveries",
    "delivery_attempts",
)
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Move:
    """A position's step in one batch. `record_time` is the last record's; None when the step passed none."""

    topic: str
    partition: int
    expected: int
    next_offset: int
    record_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """The rows for one table, sorted by key. `fresh` ones are expected to be new, `merged` ones to meet others."""

    table: str
    columns: tuple[str, ...]
    fresh: Sequence[tuple[Any, ...]]
    merged: Sequence[tuple[Any, ...]]


class AlreadyThere(Exception):
    """A fresh row was there already: the same batch must be written again with this table's rows merged."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


class Refused(Exception):
    """Postgres refuses a value of this batch, and would do so again."""


class Projection:
    """The tables of one schema, over connections the caller gives. Safe to share between connections."""

    def __init__(self, schema: str = "read") -> None:
        self.schema = schema
        self._sql = queries.in_schema(queries.load("projection"), schema)
        self._days: set[int] = set()

    async def positions(self, connection: Connection) -> dict[Place, int]:
        """Every known position."""
        rows = await connection.fetch(self._sql["known_positions"])
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    def forget_days(self) -> None:
        """Look for day partitions anew: another schema may have taken this one's place."""
        self._days.clear()

    async def begin(self, connection: Connection, starts: dict[Place, int]) -> None:
        """Give first positions to partitions that have none. Safe to repeat: a known position stays."""
        places = sorted(starts)
        await connection.execute(
            self._sql["begin_positions"],
            [topic for topic, _ in places],
            [partition for _, partition in places],
            [starts[place] for place in places],
        )

    async def write(
        self, connection: Connection, moves: Sequence[Move], writes: Iterable[Write], *, careful: frozenset[str]
    ) -> None:
        """One batch in one transaction: all of it, or nothing and an error.

        Raises Stale when a position is not where the caller expects it, AlreadyThere when a fresh row of a table that
        is not in `careful` exists, Refused for a value that no column takes."""
        try:
            async with connection.transaction():
                await self._move(connection, moves)
                for write in writes:
                    await self._write(connection, write, write.table in careful)
        except asyncpg.UniqueViolationError as error:
            raise AlreadyThere(self._parent(error.table_name or "")) from error
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError, OverflowError, UnicodeError) as error:
            raise Refused(f"Postgres refuses it: {error}") from error

    async def _move(self, connection: Connection, moves: Sequence[Move]) -> None:
        ordered = sorted(moves, key=lambda move: (move.topic, move.partition))
        moved = await connection.execute(
            self._sql["move_positions"],
            [move.topic for move in ordered],
            [move.partition for move in ordered],
            [move.expected for move in ordered],
            [move.next_offset for move in ordered],
            [move.record_time for move in ordered],
        )
        if moved != f"UPDATE {len(ordered)}":
            raise Stale("another projector has moved on with these positions")

    async def _write(self, connection: Connection, write: Write, is_careful: bool) -> None:
        merged = write.merged
        if is_careful:
            merged = sorted(chain(write.fresh, merged), key=lambda row: row[0]) if merged else write.fresh
        elif write.fresh:
            await connection.copy_records_to_table(
                write.table, schema_name=self.schema, columns=write.columns, records=write.fresh
            )
        if merged:
            # Columns are bound one by one, as arrays: one statement however many rows.
            await connection.execute(self._sql[f"merge_{write.table}"], *map(list, zip(*merged, strict=True)))

    @staticmethod
    def _parent(table: str) -> str:
        name, _, part = table.rpartition("_")
        return name if part == "default" or _is_day(part) else table

    async def ensure_days(self, connection: Connection, days: Iterable[int], *, now_ms: int) -> None:
        """Make the day partitions for these days (whole days since 1970) where they are missing and within reach.

        Call it outside a transaction. Days out of reach, and days whose rows began in the default partition, stay
        there. Raises asyncpg.LockNotAvailableError when the tables are busy: ask again."""
        today = now_ms // _DAY_MS
        reach = range(today - limits.PARTITION_DAYS_BACK, today + limits.PARTITION_DAYS_AHEAD + 1)
        for day in sorted(set(days) - self._days):
            if day in reach:
                await self._make_day(connection, day)
            self._days.add(day)

    async def _make_day(self, connection: Connection, day: int) -> None:
        for table in PARTITIONED:
            name = f"{table}_{_day_name(day)}"
            try:
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '5s'")
                    await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"{self.schema}.{name}")
                    if await connection.fetchval("SELECT to_regclass($1)", f"{self.schema}.{name}") is not None:
                        continue
                    # Made beside and then attached: that way nobody who reads the table is locked out of it.
                    parent = f"{self.schema}.{table}"
                    await connection.execute(f"CREATE TABLE {self.schema}.{name} (LIKE {parent} INCLUDING ALL)")
                    await connection.execute(
                        f"ALTER TABLE {parent} ATTACH PARTITION {self.schema}.{name} "
                        f"FOR VALUES FROM ('{_first_id(day)}') TO ('{_first_id(day + 1)}')"
                    )
            except asyncpg.CheckViolationError:
                continue  # rows of that day are in the default partition already


def day_of(uuid_hex: str) -> int:
    """The day, since 1970, whose partition holds this id."""
    return int(uuid_hex[:12], 16) // _DAY_MS


def _day_name(day: int) -> str:
    return f"d{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y%m%d}"


def _is_day(text: str) -> bool:
    return len(text) == 9 and text[0] == "d" and text[1:].isdigit()


def _first_id(day: int) -> uuid.UUID:
    return uuid.UUID(int=(day * _DAY_MS) << 80)
