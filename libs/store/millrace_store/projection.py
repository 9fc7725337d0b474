"""How the projector writes: positions by compare and set, rows by COPY, day partitions made on demand.

Rows and positions commit in one transaction whose first statement moves the positions from what the writer expects; a
writer that no longer owns them moves none and must roll back. Everything is addressed to one schema (`read`, or the
shadow of a rebuild). Not here: what the rows say (the projector's handlers), retrying.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any

import asyncpg

from millrace_core import limits
from millrace_core.errors import Stale
from millrace_core.ids import DAY_MS
from millrace_store import days, queries
from millrace_store.pool import Connection

Place = tuple[str, int]
"""A partition: catalogue name of its topic, and its number."""


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
        self._dropped: set[int] = set()
        self._known_ms = 0

    async def positions(self, connection: Connection) -> dict[Place, int]:
        """Every known position."""
        rows = await connection.fetch(self._sql["known_positions"])
        return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}

    def forget_days(self) -> None:
        """Look for days anew: another schema may have taken this one's place, or days were dropped."""
        self._days.clear()
        self._dropped.clear()

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
        return name if part == "default" or days.is_day_name(part) else table

    async def ensure_days(self, connection: Connection, wanted: Iterable[int], *, now_ms: int) -> None:
        """Make the day partitions for these days (whole days since 1970) where they are missing and within reach.

        Call it outside a transaction. Days out of reach, and days whose rows began in the default partition, stay
        there; so do, for a minute, those of a day that cannot be made at once because its tables are in use."""
        if not 0 <= now_ms - self._known_ms < limits.DAYS_KNOWN_MS:
            self.forget_days()
            self._known_ms = now_ms
        if not (unknown := set(wanted) - self._days):
            return
        self._dropped |= await days.dropped(connection, unknown)
        today = now_ms // DAY_MS
        reach = range(today - limits.PARTITION_DAYS_BACK, today + limits.PARTITION_DAYS_AHEAD + 1)
        missing = [day for day in sorted(unknown - self._dropped) if day in reach]
        with contextlib.suppress(asyncpg.LockNotAvailableError):
            await days.make(connection, missing, schema=self.schema)
        self._days |= unknown

    def kept(self, writes: Sequence[Write]) -> Sequence[Write]:
        """These writes without rows of days that were dropped: it is as if such a row had gone with its day."""
        if not self._dropped:
            return writes
        return [
            replace(write, fresh=self._kept(write.table, write.fresh), merged=self._kept(write.table, write.merged))
            if write.table in days.DATED
            else write
            for write in writes
        ]

    def _kept(self, table: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [row for row in rows if days.day_of_row(table, row) not in self._dropped]
