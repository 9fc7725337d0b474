"""Migrations on a real Postgres: once each, in order, all or nothing, and `schema.sql` is what they add up to."""

import asyncio

import asyncpg
import pytest

from millrace_core.errors import Fatal
from millrace_projector.tables import TABLES
from millrace_store import migrations, shadow
from millrace_store.migrations import Migration, migrate, ordered, pending
from tests.support.infra import execute
from tests.support.schema import SCHEMA_SQL, described

ONE = Migration(1, "0001_one.sql", "CREATE TABLE one (n integer);")
TWO = Migration(2, "0002_two.sql", "CREATE TABLE two (n integer); INSERT INTO two VALUES (1);")
INDEX = Migration(3, "0003_index.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON one (n);")


async def test_schema_sql_is_what_the_migrations_add_up_to(database: str) -> None:
    await migrate(database)
    from_migrations = await described(database, "read", "control")
    await execute(database, "DROP SCHEMA read CASCADE")
    await execute(database, "DROP SCHEMA control CASCADE")
    await execute(database, SCHEMA_SQL.read_text())
    assert await described(database, "read", "control") == from_migrations, "run `python -m tests.support.schema`"


async def test_the_shadow_is_the_same_schema_under_another_name(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    await shadow.create(connection)
    await connection.close()
    live = [line.replace("read.", "read_rebuild.") for line in await described(database, "read")]
    assert await described(database, shadow.SHADOW) == sorted(live)


async def test_the_projectors_columns_are_the_tables(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    for table in TABLES:
        columns = await connection.fetch(
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'read' AND table_name = $1 "
            "ORDER BY ordinal_position",
            table.name,
        )
        assert tuple(row[0] for row in columns) == table.columns
    await connection.close()


async def test_dead_letters_outlive_their_partitioning(database: str) -> None:
    await migrate(database, migrations=[each for each in migrations.packaged() if each.number < 6])
    await execute(
        database,
        "INSERT INTO read.dead_letters VALUES ('dead-letters', 1, 2, 'a', now(), 'x', 'y', 3, 4, 'k', 'v', '{}')",
    )
    await migrate(database)
    connection = await asyncpg.connect(database)
    (row,) = await connection.fetch("SELECT * FROM read.dead_letters")
    assert (row["topic"], row["offset"], row["source_offset"], row["value"]) == ("dead-letters", 2, 4, b"v")
    await connection.close()


async def test_each_migration_is_applied_once(database: str) -> None:
    assert await migrate(database, migrations=[ONE]) == ["0001_one.sql"]
    assert await migrate(database, migrations=[ONE, TWO, INDEX]) == ["0002_two.sql", "0003_index.sql"]
    assert await migrate(database, migrations=[ONE, TWO, INDEX]) == []


async def test_runners_at_once_apply_each_once(database: str) -> None:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(migrate(database, migrations=[ONE, TWO])) for _ in range(4)]
    assert sorted(len(run.result()) for run in runs) == [0, 0, 0, 2]


async def test_a_changed_migration_is_refused_before_anything_runs(database: str) -> None:
    await migrate(database, migrations=[ONE])
    changed = Migration(1, ONE.name, "CREATE TABLE one (n bigint);")
    with pytest.raises(Fatal, match="was changed after it had been applied"):
        await migrate(database, migrations=[changed, TWO])
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT to_regclass('two')") is None
    await connection.close()


async def test_a_database_newer_than_the_release_is_refused(database: str) -> None:
    await migrate(database, migrations=[ONE, TWO])
    with pytest.raises(Fatal, match="does not know"):
        await migrate(database, migrations=[ONE])


async def test_a_failed_migration_leaves_nothing(database: str) -> None:
    broken = Migration(2, "0002_broken.sql", "CREATE TABLE half (n integer); SELECT nonsense;")
    with pytest.raises(Fatal, match=r"0002_broken\.sql failed"):
        await migrate(database, migrations=[ONE, broken])
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await connection.fetchval("SELECT to_regclass('one')") is not None
    await connection.close()


async def test_what_is_pending_is_named(database: str) -> None:
    assert await pending(database) == [migration.name for migration in migrations.packaged()]
    await migrate(database)
    assert await pending(database) == []


@pytest.mark.parametrize("name", ["one.sql", "1_one.sql", "0001-one.sql", "0001_One.sql"])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(Fatal, match="is not a migration"):
        ordered({name: "SELECT 1"})


def test_a_number_used_twice_is_refused() -> None:
    with pytest.raises(Fatal, match="the same number"):
        ordered({"0001_a.sql": "SELECT 1", "0001_b.sql": "SELECT 1"})
