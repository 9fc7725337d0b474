"""In force at once: a call returns when its own view has the change; one that cannot says that the change stands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from millrace_api.application import accounts, keys
from millrace_api.application.changes import Changes
from millrace_api.application.database import Database
from millrace_api.application.problems import NotYetInForce
from millrace_core.clock import SystemClock
from millrace_core.errors import Retry
from millrace_store.migrations import migrate
from millrace_store.pool import open_pool
from tests.support.api_world import ApiWorld
from tests.support.waiting import eventually


class View:
    """A view that is told how far it is."""

    def __init__(self) -> None:
        self.position = 0
        self.asked: list[int] = []

    async def passed(self, position: int, *, timeout_s: float) -> None:
        self.asked.append(position)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.position < position:
            if loop.time() > deadline:
                raise Retry("too slow")
            await asyncio.sleep(0.005)


@pytest.fixture
async def migrated(database: str) -> AsyncIterator[Database]:
    """A database with an account and no relay."""
    await migrate(database)
    async with open_pool(database, name="test") as pool:
        await pool.execute(
            "INSERT INTO control.accounts (id, version, name, plan, created_at) VALUES ('a', 1, 'a', 'free', now())"
        )
        yield Database(pool)


@asynccontextmanager
async def running(database: Database, view: View, *, wait_s: float = 15.0) -> AsyncIterator[Changes]:
    """Changes with their worker."""
    changes, stop = Changes(database, view, SystemClock(), wait_s=wait_s), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(changes.run(stop))
        yield changes
        stop.set()


async def publish(database: str, position: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("UPDATE control.control_outbox SET published_position = $1", position)
    finally:
        await connection.close()


async def is_waiting(database: Database) -> bool:
    """Whether a change waits to be published."""
    async with database.asking() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM control.control_outbox"))


async def give_up_order(changes: Changes) -> int | None:
    async with changes.begin() as change:
        await accounts.set_unordered(change, "a", ["e:a/b"])
    return change.position


async def test_a_change_returns_when_the_view_has_passed_it(migrated: Database, database: str) -> None:
    view = View()
    async with running(migrated, view) as changes:
        asked = asyncio.ensure_future(give_up_order(changes))
        await eventually(lambda: is_waiting(migrated))
        assert not asked.done(), "the relay has not published it"
        await publish(database, 7)
        await eventually(lambda: view.asked == [7])
        assert not asked.done(), "the view has not passed it"
        view.position = 7
        assert await asked == 7


@pytest.mark.parametrize("published", [False, True], ids=["no relay", "a view that stands still"])
async def test_a_change_that_takes_too_long_stands(migrated: Database, database: str, published: bool) -> None:
    async with running(migrated, View(), wait_s=0.5) as changes:
        asked = asyncio.ensure_future(give_up_order(changes))
        await eventually(lambda: is_waiting(migrated))
        if published:
            await publish(database, 7)
        with pytest.raises(NotYetInForce) as raised:
            await asked
    assert raised.value.ids == ("a",)
    async with migrated.asking() as connection:
        assert (await accounts.get(connection, "a")).unordered == ["e:a/b"]


async def test_a_refused_change_leaves_nothing(migrated: Database) -> None:
    changes = Changes(migrated, View(), SystemClock(), wait_s=0.3)

    async def change_and_fail() -> None:
        async with changes.begin() as change:
            await accounts.set_unordered(change, "a", ["e:a/b"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_and_fail()
    async with migrated.asking() as connection:
        assert await connection.fetchval("SELECT count(*) FROM control.control_outbox") == 0
        assert (await accounts.get(connection, "a")).unordered == []


async def test_changes_of_one_thing_take_versions_one_after_the_other(api: ApiWorld) -> None:
    job = {"name": "x", "step": {"type": "transform", "config": {"value": 1}}}
    id = (await api.ask("POST", "/v1/jobs", job)).data["id"]
    answers = await asyncio.gather(*(api.ask("PATCH", f"/v1/jobs/{id}", {"name": f"n{n}"}) for n in range(20)))
    assert sorted(answer.data["version"] for answer in answers) == list(range(2, 22))
    last = max(answers, key=lambda answer: answer.data["version"]).data
    assert (await api.ask("GET", f"/v1/jobs/{id}")).data == last


async def test_keys_work_at_once_and_none_after_its_end(api: ApiWorld) -> None:
    """A creation's answer proves that this replica's view has the key, a revocation's that it has it no more."""
    for n in range(40):
        made = (await api.ask("POST", "/v1/keys", {"name": f"k{n}", "scopes": ["read:runs"]})).data
        assert (await api.ask("GET", "/v1/accounts/me", key=made["key"])).status == 200
        await api.ask("DELETE", f"/v1/keys/{made['id']}")
        assert (await api.ask("GET", "/v1/accounts/me", key=made["key"])).status == 401


def test_a_key_view_never_holds_the_key() -> None:
    assert "key" not in keys.KeyView.__slots__
