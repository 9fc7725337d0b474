"""Every named statement is one that the migrated database understands: names, columns, types."""

from pathlib import Path

import asyncpg

import millrace_store
from millrace_store import queries
from millrace_store.days import PARTITIONED, day_of
from millrace_store.migrations import migrate
from millrace_store.pool import connect
from millrace_store.projection import Projection

FOLDER = Path(millrace_store.__file__).parent / "sql"
DAY_MS = 86_400_000


async def test_every_statement_can_be_prepared(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    await connection.execute(
        "CREATE SCHEMA read_rebuild; CREATE TABLE read_rebuild.positions (LIKE read.positions);"
        "CREATE TABLE read_rebuild.account_book (LIKE read.account_book)"
    )
    wrong = []
    for path in sorted(FOLDER.rglob("*.sql")):
        for name, sql in queries.load(str(path.relative_to(FOLDER).with_suffix(""))).items():
            try:
                await connection.prepare(sql)
            except asyncpg.PostgresError as error:
                wrong.append(f"{path.name} {name}: {error}")
    await connection.close()
    assert wrong == []


async def test_day_partitions_are_made_within_reach_and_found_again(database: str) -> None:
    await migrate(database)
    connection = await connect(database, name="test")
    now_ms = 1_790_000_000_000
    today = now_ms // DAY_MS
    days = [today - 400, today - 40, today, today + 2, today + 3]
    for _ in range(2):  # a second projector finds them there
        await Projection().ensure_days(connection, days, now_ms=now_ms)
    made = await connection.fetch(
        "SELECT inhparent::regclass::text AS parent, count(*) AS parts FROM pg_inherits "
        "WHERE inhparent::regclass::text LIKE 'read.%' AND inhparent::regclass::text NOT LIKE '%idx' "
        "AND inhparent::regclass::text NOT LIKE '%pkey' GROUP BY 1"
    )
    assert {row["parent"]: row["parts"] for row in made} == {f"read.{table}": 4 for table in PARTITIONED}
    await connection.close()


async def test_a_row_goes_to_the_partition_of_its_ids_day(database: str) -> None:
    await migrate(database)
    connection = await connect(database, name="test")
    now_ms = 1_790_000_000_000
    first, last = f"{now_ms - now_ms % DAY_MS:012x}", f"{now_ms - now_ms % DAY_MS + DAY_MS - 1:012x}"
    assert day_of(first + "0" * 20) == day_of(last + "f" * 20) == now_ms // DAY_MS
    await Projection().ensure_days(connection, [now_ms // DAY_MS], now_ms=now_ms)
    for id in (first + "0" * 20, last + "f" * 20):
        await connection.execute(
            "INSERT INTO read.event_matches (event, kind, child, account) VALUES ($1, 'run', $1, 'acc_1')", id
        )
    [place] = await connection.fetch("SELECT DISTINCT tableoid::regclass::text AS part FROM read.event_matches")
    assert place["part"] == "read.event_matches_d20260921"
    await connection.close()


async def test_rows_that_came_before_their_partition_stay_where_they_are(database: str) -> None:
    await migrate(database)
    connection = await connect(database, name="test")
    now_ms = 1_790_000_000_000
    id = f"{now_ms:012x}" + "0" * 20
    insert = "INSERT INTO read.event_matches (event, kind, child, account) VALUES ($1, 'run', $1, 'acc_1')"
    await connection.execute(insert, id)
    await Projection().ensure_days(connection, [now_ms // DAY_MS], now_ms=now_ms)
    await connection.execute(insert, f"{now_ms:012x}" + "1" * 20)
    found = await connection.fetch("SELECT tableoid::regclass::text AS part FROM read.event_matches")
    assert {row["part"] for row in found} == {"read.event_matches_default"}
    await connection.close()
