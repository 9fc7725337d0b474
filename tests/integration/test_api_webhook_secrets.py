"""The life of a webhook's secrets, on a real Postgres: two sign until the old one's time is over, then one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from millrace_api.application import webhooks
from millrace_api.application.changes import Change
from millrace_api.application.database import Database
from millrace_core.keyring import KeyRing, endpoint_secret, new_ring_entry
from millrace_core.messages import EndpointControl
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool

RING = KeyRing.parse(new_ring_entry("k1"))
WANTED = webhooks.Wanted("https://example.test/")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def migrated(database: str) -> AsyncIterator[Database]:
    await migrate(database)
    async with open_pool(database, name="test") as pool:
        await pool.execute(
            "INSERT INTO control.accounts (id, version, name, plan, created_at) VALUES ('a', 1, 'a', 'free', now())"
        )
        yield Database(pool)


async def forget(database: Database, now: datetime) -> int:
    async with database.writing() as tx:
        return await webhooks.forget_old_secrets(Change(tx, now))


async def in_force(database: Database) -> list[str]:
    """The secrets of the newest version on its way to the log."""
    async with database.asking() as connection:
        row = await connection.fetchrow(
            "SELECT * FROM control.control_outbox WHERE kind = 'endpoint' ORDER BY version DESC"
        )
    assert row is not None
    control = msgspec.json.decode(row["value"], type=EndpointControl)
    return [RING.open(sealed, account="a", name=endpoint_secret(row["aggregate"])) for sealed in control.secrets]


async def test_the_old_secret_signs_until_its_time_is_over(migrated: Database) -> None:
    async with migrated.writing() as tx:
        made = await webhooks.create(Change(tx, NOW), "a", WANTED, secret=None, ring=RING, egress=())
    async with migrated.writing() as tx:
        rotated = await webhooks.rotate_secret(Change(tx, NOW), "a", made.id, secret=None, grace_s=3600, ring=RING)
    assert await in_force(migrated) == [rotated.secret, made.secret]

    assert await forget(migrated, NOW + timedelta(seconds=3599)) == 0
    assert await in_force(migrated) == [rotated.secret, made.secret]
    assert await forget(migrated, NOW + timedelta(seconds=3600)) == 1
    assert await in_force(migrated) == [rotated.secret]
    assert await forget(migrated, NOW + timedelta(days=9)) == 0


async def test_a_second_rotation_within_the_grace_keeps_the_newest_two(migrated: Database) -> None:
    async with migrated.writing() as tx:
        made = await webhooks.create(
            Change(tx, NOW),
            "a",
            webhooks.Wanted("https://example.test/"),
            secret="first-secret-here",
            ring=RING,
            egress=(),
        )
    for secret in ("second-secret-here", "third-secret-here"):
        async with migrated.writing() as tx:
            await webhooks.rotate_secret(Change(tx, NOW), "a", made.id, secret=secret, grace_s=60, ring=RING)
    assert await in_force(migrated) == ["third-secret-here", "second-secret-here"]
