"""Answers under a key on a real Postgres: the second waits for the first, and what is over goes.

Not here: headers and statuses, which the API's tests tell.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from millrace_core import limits
from millrace_core.errors import Stale
from millrace_store import idempotency
from millrace_store.idempotency import Answer, Asked
from millrace_store.migrations import migrate

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(milliseconds=limits.IDEMPOTENCY_KEPT_MS)
ASKED = Asked("acc_1", "key_1", "k", b"digest")
ANSWER = Answer(202, b'{"n": 1}')


@pytest.fixture
async def migrated(database: str) -> str:
    await migrate(database)
    return database


@pytest.mark.parametrize("ends", ["well", "badly"])
async def test_the_second_waits_for_the_first(migrated: str, ends: str) -> None:
    first, second = await asyncpg.connect(migrated), await asyncpg.connect(migrated)
    transaction = first.transaction()
    await transaction.start()
    assert (await idempotency.claim(first, ASKED, now=NOW)).answer is None
    waiting = asyncio.ensure_future(idempotency.claim(second, ASKED, now=NOW))
    await idempotency.keep(first, ASKED, ANSWER)
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    await (transaction.commit() if ends == "well" else transaction.rollback())
    assert (await waiting).answer == (ANSWER if ends == "well" else None)
    await first.close()
    await second.close()


async def test_a_key_is_one_request_of_one_api_key_for_a_day(migrated: str) -> None:
    connection = await asyncpg.connect(migrated)
    await idempotency.claim(connection, ASKED, now=NOW)
    await idempotency.keep(connection, ASKED, ANSWER)
    await idempotency.keep(connection, ASKED, Answer(200, b"a later one"))
    assert (await idempotency.claim(connection, ASKED, now=NOW + DAY - timedelta(seconds=1))).answer == ANSWER
    other = Asked("acc_1", "key_1", "k", b"another digest")
    with pytest.raises(Stale):
        await idempotency.claim(connection, other, now=NOW)
    assert (await idempotency.claim(connection, Asked("acc_1", "key_2", "k", b"digest"), now=NOW)).answer is None
    assert (await idempotency.claim(connection, Asked("acc_2", "key_1", "k", b"digest"), now=NOW)).answer is None
    assert (await idempotency.claim(connection, other, now=NOW + DAY)).answer is None
    await connection.close()


async def test_what_is_over_goes_with_the_next_ones(migrated: str) -> None:
    connection = await asyncpg.connect(migrated)
    for n in range(25):
        await idempotency.claim(connection, Asked("acc_1", "key_1", f"old {n}", b""), now=NOW)
    await idempotency.claim(connection, Asked("acc_2", "key_1", "another's", b""), now=NOW)
    for n in range(3):
        await idempotency.claim(connection, Asked("acc_1", "key_1", f"new {n}", b""), now=NOW + DAY)
    kept = await connection.fetch("SELECT key FROM control.idempotency_keys ORDER BY key")
    assert [row["key"] for row in kept] == ["another's", "new 0", "new 1", "new 2"]
    await connection.close()
