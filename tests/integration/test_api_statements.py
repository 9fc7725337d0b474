"""Every statement of the API is one that Postgres understands, over the schema that the migrations make."""

from importlib import resources

import asyncpg
import pytest

from millrace_store import queries
from millrace_store.migrations import migrate

FILES = sorted(file.name.removesuffix(".sql") for file in (resources.files("millrace_store") / "sql" / "api").iterdir())


async def test_every_statement_can_be_prepared(database: str) -> None:
    await migrate(database)
    connection = await asyncpg.connect(database)
    try:
        for file in FILES:
            for name, statement in queries.load(f"api/{file}").items():
                if statement.startswith("LOCK"):
                    continue
                try:
                    await connection.prepare(statement)
                except asyncpg.PostgresError as error:
                    pytest.fail(f"api/{file}.sql, {name}: {error}")
    finally:
        await connection.close()


async def test_each_statement_about_an_account_names_it() -> None:
    """No statement reads or writes rows of all accounts, but those that say so."""
    of_all = {"find_account", "insert_account", "find_key", "forget_old_secrets", "positions_of", "published_positions",
              "hold_still", "waiting", "queue_again", "update_account", "get_account", "keep_account", "hold_account",
              "live_replays", "begin_replays", "live_by_state", "gone_endpoints", "failing_endpoints",
              "untold_disablings", "chunk_of_root", "closed_until", "seed", "find_connection",
              "insert_test_account", "test_account", "lock_account", "set_flow"}  # fmt: skip
    for file in FILES:
        for name, statement in queries.load(f"api/{file}").items():
            if name in of_all or name.startswith("all_"):
                continue
            assert "account = $1" in statement or "(account," in statement, (file, name)
