"""The projector on a real broker and a real Postgres: what stands on the log stands in the tables, once."""

import asyncpg

from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_store.migrations import migrate
from tests.support import projecting, story
from tests.support.projecting import projector, until_projected
from tests.support.waiting import eventually


async def test_every_record_becomes_its_rows(cluster: Cluster, database: str) -> None:
    teller = story.Teller()
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, [record for n in range(20) for record in teller.whole(n)])
    async with projector(cluster, database):
        await until_projected(cluster, database)
    tables = await projecting.tables(database)
    assert {name: len(rows) for name, rows in tables.items()} == {
        "events": 20,
        "event_outcomes": 20,
        "event_matches": 40,
        "runs": 20,
        "steps": 20,
        "step_attempts": 40,
        "deliveries": 20,
        "delivery_attempts": 40,
        "dead_letters": 0,
        "account_book": 3,
        "payloads": 0,
        "receipt_roots": 0,
        "receipt_leaves": 0,
        "receipt_days": 0,
        "receipt_seeds": 0,
        "entities": 0,
        "audit": 0,
    }


async def test_a_story_told_in_pieces_ends_in_the_same_rows(cluster: Cluster, database: str) -> None:
    """Each record in a batch of its own, facts before the rows they speak of."""
    teller = story.Teller()
    await create_topics(cluster)
    await migrate(database)
    pieces = teller.whole(0)
    order = [*pieces[3:], *pieces[:3]]
    async with projector(cluster, database) as running:
        for piece in order:
            await story.append(cluster, [piece])
            await until_projected(cluster, database)
        await eventually(lambda: running.ready() is None)
        in_pieces = await projecting.tables(database)
    connection = await asyncpg.connect(database)
    run = await connection.fetchrow("SELECT * FROM read.runs")
    delivery = await connection.fetchrow("SELECT * FROM read.deliveries")
    step = await connection.fetchrow("SELECT * FROM read.steps")
    await connection.close()
    assert run is not None
    assert delivery is not None
    assert step is not None
    assert (run["status"], run["plan_name"], run["identifier"]) == ("completed", "Send a mail", "e:shop/order")
    assert (delivery["status"], delivery["attempts"], delivery["next_attempt_at"]) == ("succeeded", 2, None)
    assert (step["status"], step["attempts"], step["error_code"]) == ("completed", 2, None)
    assert len(in_pieces["events"]) == 1
