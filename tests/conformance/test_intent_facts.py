"""What prompts ask of live data: the same answers in memory, for tests, and out of what events told."""

from collections.abc import AsyncIterator

import pytest

from millrace_api.application.intents import LiveFacts
from millrace_core.intents import Facts, Found
from millrace_store.pool import connect
from tests.support.api_world import ApiWorld
from tests.support.intent_world import World
from tests.support.telling import tell

ACCOUNT = "acc_of_the_facts"


@pytest.fixture(params=["memory", "live"])
async def facts(request: pytest.FixtureRequest, api: ApiWorld) -> AsyncIterator[Facts]:
    if request.param == "memory":
        yield World(
            [Found("1", "Adam Novak"), Found("2", "Adam Brook"), Found("3", "Eve")],
            [
                ("invoice", Found("in_2", "in_2", "1"), "paid"),
                ("invoice", Found("in_1", "in_1", "1"), "paid"),
                ("invoice", Found("in_3", "in_3", "1"), "open"),
            ],
        )
        return
    for id, name in (("1", "Adam Novak"), ("2", "Adam Brook"), ("3", "Eve")):
        await tell(api.dsn, ACCOUNT, "customer.signed_up", {"id": id, "name": name})
    for id, day, name in (("in_3", "01", "created"), ("in_1", "02", "paid"), ("in_2", "03", "paid")):
        told = {"id": id, "customer_id": "1", "status": "open", "created_at": f"2026-01-{day}"}
        await tell(api.dsn, ACCOUNT, f"invoice.{name}", told | ({"status": "paid"} if name == "paid" else {}))
    connection = await connect(api.dsn, name="test facts")
    try:
        yield LiveFacts(connection, ACCOUNT)
    finally:
        await connection.close()


async def test_a_name_finds_all_who_have_it(facts: Facts) -> None:
    assert {one.id for one in await facts.customers("adam", most=5)} == {"1", "2"}
    assert [one.label for one in await facts.customers("Adam Brook", most=5)] == ["Adam Brook"]
    assert len(await facts.customers("Adam", most=1)) == 1
    assert list(await facts.customers("Zoe", most=5)) == []


async def test_the_newest_come_first_and_only_those_of_the_status(facts: Facts) -> None:
    paid = await facts.of_customer("invoice", "1", status="paid", most=5)
    assert [one.id for one in paid] == ["in_2", "in_1"]
    assert [one.id for one in await facts.of_customer("invoice", "1", status=None, most=1)] == ["in_2"]
    assert list(await facts.of_customer("invoice", "2", status=None, most=5)) == []


async def test_a_thing_is_found_by_its_id_and_says_whose_it_is(facts: Facts) -> None:
    found = await facts.get("invoice", "in_1")
    assert found is not None
    assert found.customer == "1"
    assert await facts.get("invoice", "in_9") is None
    assert await facts.get("subscription", "in_1") is None
