"""How long a request may hold a connection, and who may hold one longer."""

import asyncio

import pytest

from millrace_api.application.database import Database
from millrace_api.application.problems import Unavailable
from millrace_store.pool import open_pool


async def keep(database: Database) -> None:
    async with database.writing() as tx:
        await tx.execute("CREATE TABLE kept (n integer)")
        await tx.execute("SELECT pg_sleep(60)")


async def test_a_connection_that_is_held_too_long_is_closed_and_the_next_one_works(database: str) -> None:
    async with open_pool(database, name="test", connections_max=1) as pool:
        hasty = Database(pool, holds_s=0.1)
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await keep(hasty)
            async with Database(pool).reading() as tx:
                assert await tx.fetchval("SELECT to_regclass('kept')") is None
            async with hasty.patient.asking() as connection:
                assert await connection.fetchval("SELECT 1 FROM pg_sleep(0.3)") == 1
