"""The days of the read models: made, looked at, and dropped whole.

Each table of facts has a partition for each UTC day, and a default partition for what has none. A row's day is its
id's, so an event, what it started and all that became of it share one; a dead letter's is its own record's. A day that
goes is written down first (`control.dropped_days`): from then on nobody writes rows of it, a rebuild neither. Then its
partitions are detached, one short lock each, and dropped when nobody can reach them any more. Each step may be
repeated, and a crash between two leaves nothing that the next turn does not find.
Not here: which day goes, and when (the projector's `keeping`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any

import asyncpg

from millrace_core import limits
from millrace_core.ids import DAY_MS
from millrace_store import queries
from millrace_store.pool import Connection

_SQL = queries.load("days")
_EPOCH = date(1970, 1, 1)
_CALENDAR = range((date.max - _EPOCH).days)  # the time in an id may be of any size
_is_day_name = re.compile(r"d\d{8}").fullmatch

# The column that says a row's day. Where it is an id it is the first one.
DATED: Mapping[str, str] = {
    "events": "id",
    "event_outcomes": "event",
    "event_matches": "event",
    "runs": "id",
    "steps": "run",
    "step_attempts": "run",
    "deliveries": "id",
    "delivery_attempts": "delivery",
    "payloads": "owner",
    "dead_letters": "at",
}
PARTITIONED = tuple(DATED)
BY_TIME = "dead_letters"
_AT = 4  # the place of `at` among the columns of a dead letter


@dataclass(frozen=True, slots=True)
class Days:
    """What there is, by day. `detached` partitions are on their way out; `strays` are days with rows in a default
    partition."""

    attached: Mapping[int, frozenset[str]]
    detached: Mapping[int, frozenset[str]]
    strays: frozenset[int]


def day_of(uuid_hex: str) -> int:
    """The day, since 1970, whose partition holds this id."""
    return int(uuid_hex[:12], 16) // DAY_MS


def day_of_row(table: str, row: tuple[Any, ...]) -> int:
    """The day of a row of one of these tables."""
    return _day(row[_AT].astimezone(UTC).date()) if table == BY_TIME else day_of(row[0])


def first_id(day: int) -> str:
    """The lowest id of a day."""
    return f"{day * DAY_MS << 80:032x}"


def is_day_name(text: str) -> bool:
    """Whether a table's last part is a day's name."""
    return _is_day_name(text) is not None


def name_of(day: int) -> str:
    """A day as it is written."""
    return _date(day).isoformat()


async def dropped(connection: Connection, days: Iterable[int]) -> set[int]:
    """Which of these days were dropped, or are being."""
    rows = await connection.fetch(_SQL["dropped_among"], [_date(day) for day in days if day in _CALENDAR])
    return {_day(row["day"]) for row in rows}


async def every_dropped(connection: Connection) -> frozenset[int]:
    """All of them."""
    return frozenset(_day(row["day"]) for row in await connection.fetch(_SQL["dropped_days"]))


async def make(connection: Connection, days: Iterable[int], *, schema: str = "read", adopt: bool = False) -> None:
    """Make the partitions of these days that are missing. Call it outside a transaction.

    A table whose default partition has rows of that day is left as it is, or they are moved with `adopt`. Raises
    LockNotAvailableError when a table is in use for too long: what is left is made the next time."""
    wanted = [(table, day) for day in days for table in PARTITIONED]
    if not wanted:
        return
    names = [_name(table, day) for table, day in wanted]
    there = {row["relname"] for row in await connection.fetch(_SQL["tables_among"], schema, names)}
    for table, day in wanted:
        if _name(table, day) in there:
            continue
        try:
            await _make(connection, table, day, schema=schema, adopt=adopt)
        except asyncpg.CheckViolationError:
            if adopt:
                raise


async def _make(connection: Connection, table: str, day: int, *, schema: str, adopt: bool) -> None:
    parent, part = f"{schema}.{table}", f"{schema}.{_name(table, day)}"
    first, after = _bounds(table, day)
    async with connection.transaction():
        await _hurry(connection)
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", part)
        if await connection.fetchval("SELECT to_regclass($1)", part) is not None:
            return
        # Made beside and then attached: that way nobody who reads the table is locked out of it.
        await connection.execute(f"CREATE TABLE {part} (LIKE {parent} INCLUDING ALL)")
        if adopt:
            column = DATED[table]
            await connection.execute(f"LOCK TABLE {parent}_default IN ACCESS EXCLUSIVE MODE")
            await connection.execute(
                f"WITH early AS (DELETE FROM {parent}_default WHERE {column} >= '{first}' AND {column} < '{after}' "
                f"RETURNING *) INSERT INTO {part} SELECT * FROM early"
            )
        await connection.execute(
            f"ALTER TABLE {parent} ATTACH PARTITION {part} FOR VALUES FROM ('{first}') TO ('{after}')"
        )


async def look(connection: Connection, schema: str = "read") -> Days:
    """What there is."""
    attached: dict[int, set[str]] = {}
    detached: dict[int, set[str]] = {}
    for row in await connection.fetch(_SQL["parts"], schema):
        table, _, name = row["relname"].rpartition("_")
        if table in DATED:
            where = attached if row["relispartition"] else detached
            where.setdefault(_day(date.fromisoformat(name[1:])), set()).add(table)
    strays = {row["day"] for row in await connection.fetch(_SQL["days_of_strays"])}
    return Days(_frozen(attached), _frozen(detached), frozenset(strays.intersection(_CALENDAR)))


async def first_shown(connection: Connection) -> int:
    """The first day that any account is shown."""
    day = await connection.fetchval(_SQL["first_shown"], limits.RETENTION_DAYS_DEFAULT)
    return _day(day)


async def unfinished(connection: Connection, day: int) -> str | None:
    """What of this day is not over, in a word; None when all of it is."""
    found = await connection.fetchval(_SQL["unfinished"], first_id(day), first_id(day + 1))
    return None if found is None else str(found)


async def drop(connection: Connection, day: int, there: Days) -> None:
    """Drop a day for good. Call it outside a transaction; safe to repeat.

    Raises LockNotAvailableError when a table is in use for too long: what is left goes the next time."""
    await connection.execute(_SQL["write_down"], _date(day), first_id(day), first_id(day + 1))
    for table in sorted(there.attached.get(day, ())):
        async with connection.transaction():
            await _hurry(connection)
            await connection.execute(f"ALTER TABLE read.{table} DETACH PARTITION read.{_name(table, day)}")
    for table in sorted(there.attached.get(day, frozenset()) | there.detached.get(day, frozenset())):
        await connection.execute(f"DROP TABLE IF EXISTS read.{_name(table, day)}")
    if day in there.strays:
        await _drop_strays(connection, day)


async def _drop_strays(connection: Connection, day: int) -> None:
    """Rows of that day in the default partitions: a few, of clocks that were wrong."""
    for table, column in DATED.items():
        first, after = _bounds(table, day)
        await connection.execute(
            f"DELETE FROM read.{table}_default WHERE ctid = ANY (ARRAY(SELECT ctid FROM read.{table}_default "
            f"WHERE {column} >= '{first}' AND {column} < '{after}' LIMIT {limits.STRAYS_DROPPED_A_TURN_MAX}))"
        )


async def _hurry(connection: Connection) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = '{limits.DAY_LOCK_MS_MAX}ms'")


def _name(table: str, day: int) -> str:
    return f"{table}_d{_date(day):%Y%m%d}"


def _bounds(table: str, day: int) -> tuple[str, str]:
    if table == BY_TIME:
        return f"{_date(day)} 00:00:00+00", f"{_date(day + 1)} 00:00:00+00"
    return first_id(day), first_id(day + 1)


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)


def _day(at: date) -> int:
    return (at - _EPOCH).days


def _frozen(found: Mapping[int, set[str]]) -> dict[int, frozenset[str]]:
    return {day: frozenset(tables) for day, tables in found.items()}
