"""Accounts and keys made by the command line, and the control topic queued again, on a real Postgres."""

import dataclasses
import json

import asyncpg
import pytest

from millrace_cli import bootstrap
from millrace_cli.republishing import republish
from millrace_core.credentials import new_key, new_ops_secret
from millrace_core.errors import Reject, Retry
from millrace_core.keyring import KeyRing, key_secret, new_ring_entry
from millrace_store.migrations import migrate
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually

KEYS = {
    "ingest": new_key("ingest"),
    "ops": {"public": new_key("ops"), "secret": new_ops_secret()},
    "intake": new_key("intake"),
    "agents": new_key("agents"),
    "agents_test": new_key("agents", test=True),
    "automation": new_key("automation"),
}


@pytest.fixture
async def seals(database: str) -> bootstrap.Seals:
    await migrate(database)
    return bootstrap.Seals(database, b"p" * 32, KeyRing.parse(new_ring_entry("k1")))


async def rows(dsn: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def test_the_demo_account_is_made_once(seals: bootstrap.Seals) -> None:
    assert await bootstrap.ensure_demo(seals, KEYS) == 6
    assert await bootstrap.ensure_demo(seals, KEYS) == 0
    account, test_world = await rows(seals.dsn, "SELECT * FROM control.accounts ORDER BY test_of NULLS FIRST")
    assert (test_world["name"], test_world["test_of"]) == ("demo (test)", account["id"])
    assert (account["name"], account["plan"]) == ("demo", "enterprise")
    keys = await rows(seals.dsn, "SELECT * FROM control.api_keys")
    assert len(keys) == 6
    assert all(key["scopes"] == ["*"] for key in keys)
    assert [(key["name"], key["account"]) for key in keys if key["test"]] == [("demo agents, test", test_world["id"])]
    (ops,) = (key for key in keys if key["surface"] == "ops")
    id = f"key_{ops['id'].hex}"
    opened = seals.ring.open(ops["sealed_secret"], account=account["id"], name=key_secret(id))
    assert opened == KEYS["ops"]["secret"]  # type: ignore[index]
    # Eight things to tell: both accounts and the keys.
    assert len(await rows(seals.dsn, "SELECT * FROM control.control_outbox")) == 8


async def test_the_demo_account_has_a_form_that_asks_for_a_name(seals: bootstrap.Seals) -> None:
    await bootstrap.ensure_demo(seals, KEYS)
    await bootstrap.ensure_demo(seals, KEYS)
    (account,) = await rows(seals.dsn, "SELECT id FROM control.accounts WHERE name = 'demo'")
    (form,) = await rows(seals.dsn, "SELECT * FROM control.forms")
    assert (form["account"], form["public_id"], form["status"]) == (account["id"], "demo", "published")
    assert json.loads(form["fields"]) == [{"name": "name", "type": "text", "required": True}]


async def test_a_form_that_was_deleted_is_not_made_again(seals: bootstrap.Seals) -> None:
    await bootstrap.ensure_demo(seals, KEYS)
    await rows(seals.dsn, "UPDATE control.forms SET deleted_at = now()")
    await bootstrap.ensure_demo(seals, KEYS)
    (form,) = await rows(seals.dsn, "SELECT * FROM control.forms")
    assert form["deleted_at"] is not None


async def test_a_new_key_of_the_file_is_added(seals: bootstrap.Seals) -> None:
    await bootstrap.ensure_demo(seals, KEYS)
    assert await bootstrap.ensure_demo(seals, KEYS | {"intake": new_key("intake")}) == 1


async def test_keys_are_made_listed_and_revoked(seals: bootstrap.Seals) -> None:
    made = await bootstrap.create_key(
        seals, account="x", plan="pro", wanted=bootstrap.Wanted("mine", "automation", scopes=("read:runs",))
    )
    (line,) = await bootstrap.list_keys(seals.dsn, account="x")
    assert made.id in line
    assert "in force" in line
    assert made.key not in line
    for _ in range(2):
        await bootstrap.revoke_key(seals.dsn, account="x", id=made.id)
    (line,) = await bootstrap.list_keys(seals.dsn, account="x")
    assert "revoked" in line
    values = await rows(seals.dsn, "SELECT value FROM control.control_outbox WHERE kind = 'key' ORDER BY id")
    assert [row["value"] is None for row in values] == [False, True]
    with pytest.raises(Reject, match="no account"):
        await bootstrap.list_keys(seals.dsn, account="nobody")


async def test_without_a_relay_republishing_says_so_and_leaves_it_queued(seals: bootstrap.Seals) -> None:
    await bootstrap.ensure_demo(seals, KEYS)
    connection = await asyncpg.connect(seals.dsn)
    await connection.execute("UPDATE control.control_outbox SET published_position = 5")
    await connection.close()
    with pytest.raises(Retry, match="relay"):
        await republish(seals.dsn, wait_s=0.3)
    assert len(await rows(seals.dsn, "SELECT 1 FROM control.control_outbox WHERE published_position IS NULL")) == 8


async def test_republishing_queues_the_newest_versions_only(seals: bootstrap.Seals) -> None:
    made = await bootstrap.create_key(seals, account="x", plan="pro", wanted=bootstrap.Wanted("mine", "automation"))
    await bootstrap.revoke_key(seals.dsn, account="x", id=made.id)
    connection = await asyncpg.connect(seals.dsn)
    await connection.execute("UPDATE control.control_outbox SET published_position = 5")
    await connection.close()
    with pytest.raises(Retry):
        await republish(seals.dsn, wait_s=0.1)
    queued = await rows(
        seals.dsn, "SELECT kind, version FROM control.control_outbox WHERE published_position IS NULL ORDER BY kind"
    )
    assert [tuple(row) for row in queued] == [("account", 1), ("key", 2)]


async def test_the_relay_of_a_running_api_republishes(api: ApiWorld) -> None:
    job = {"name": "x", "step": {"type": "transform", "config": {"value": 1}}}
    await api.ask("POST", "/v1/jobs", job)
    count = await republish(api.dsn, wait_s=15)
    assert count >= 5
    assert (await api.ask("GET", "/v1/accounts/me")).status == 200


async def test_an_accounts_retention_is_shown_and_set_within_its_bounds(seals: bootstrap.Seals) -> None:
    await bootstrap.create_key(
        dataclasses.replace(seals, retention_days=9), account="a", plan="free", wanted=bootstrap.Wanted("k", "ingest")
    )
    assert "a keeps 9 days" in await bootstrap.keep(seals.dsn, account="a", days=None, most=14)
    assert "a keeps 3 days" in await bootstrap.keep(seals.dsn, account="a", days=3, most=14)
    for days in (2, 15):
        with pytest.raises(Reject, match="MILLRACE_RETENTION_DAYS_MAX"):
            await bootstrap.keep(seals.dsn, account="a", days=days, most=14)
    with pytest.raises(Reject, match="no account named"):
        await bootstrap.keep(seals.dsn, account="b", days=3, most=14)


async def test_the_demo_form_is_an_intake_bot_that_takes_a_name(api: ApiWorld) -> None:
    await bootstrap.ensure_demo(api.seals, KEYS)

    async def bots() -> list[dict[str, str]]:
        answer = await api.ask("GET", "/api/v1/intake-bots", key=str(KEYS["intake"]))
        return list(answer.data["items"]) if answer.status == 200 else []

    (bot,) = await eventually(bots, what="the demo keys are in force")
    path = f"/api/v1/intake-bots/{bot['id']}/submissions"
    made = await api.ask("POST", path, {"data": {"name": "Jane Doe"}}, key=str(KEYS["intake"]))
    assert (made.status, made.data["data"]) == (201, {"name": "Jane Doe"})
    assert (await api.ask("GET", "/forms/demo", headers={"authorization": ""})).status == 200
