"""Customers and the like on a real broker and a real Postgres: told by events of many partitions, rebuilt alike."""

import json
import random
import string
from functools import partial
from typing import Any

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from millrace_core import ids, limits
from millrace_core.clock import SystemClock
from millrace_core.entities import KINDS
from millrace_core.event import to_output
from millrace_core.messages import Event, Raw
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_projector.rebuilding import rebuild
from millrace_projector.rows import Rows
from millrace_store.migrations import migrate
from tests.support import projecting, story
from tests.support.infra import execute
from tests.support.projecting import projector, until_projected
from tests.support.waiting import eventually


def said(n: int, name: str, properties: Any, *, id: str | None = None) -> Output:
    event = Event(
        id=id or ids.derived_id(ids.EVENT, story.T0 + n, "said", str(n)),
        account=story.ACCOUNT_ID,
        identifier=f"e:ops/{name}",
        received_at=story.T0 + n,
        properties=Raw(json.dumps(properties).encode()),
    )
    return to_output(event)


def is_past(at_ms: int) -> bool:
    return SystemClock().now_ms() > at_ms


async def told(cluster: Cluster, database: str, outputs: list[Output]) -> list[tuple[object, ...]]:
    """One after another on the log, so that the broker's times follow their order."""
    producer = PlainProducer(cluster)
    await producer.start()
    try:
        for output in outputs:
            (place,) = await producer.write([output])
            await eventually(partial(is_past, place.timestamp), every_s=0.001)
    finally:
        await producer.stop()
    async with projector(cluster, database):
        await until_projected(cluster, database)
    return (await projecting.tables(database))["entities"]


async def test_what_was_told_is_put_together_and_comes_out_of_a_rebuild_alike(cluster: Cluster, database: str) -> None:
    await create_topics(cluster, partitions=3)
    await migrate(database)
    first = said(0, "customer.created", {"id": 1, "name": "Adam", "plan": "free"})
    outputs = [
        first,
        said(1, "customer.upgraded", {"id": 1, "plan": "pro"}),
        said(2, "customer.created", {"id": 1, "name": "Posted again"}, id=first.headers[1][1].decode()),
        said(3, "ticket.created", {"id": 7, "customer": {"id": 1, "email": "a@b"}}),
        *(said(10 + n, f"customer.seen_{n % 7}", {"id": 2, "n": n}) for n in range(40)),
        said(60, "customer.created", {"id": 3, "name": "Eve"}),
        said(61, "customer.erased", {"id": 3}),
    ]
    before = await told(cluster, database, outputs)
    found = {
        (kind, id): {name: one[1] for name, one in json.loads(str(m)).items()} for _, kind, id, *_, m, _, _, _ in before
    }
    assert found[("customer", "1")] == {"id": "1", "name": "Adam", "plan": "pro", "email": "a@b"}
    assert found[("customer", "2")]["n"] == 39
    assert found[("customer", "3")] == {}
    assert found[("ticket", "7")]["customer_id"] == "1"
    for drop in (False, True):
        await execute(database, "UPDATE read.entities SET members = '{}', updated_ms = 0")
        producer = PlainProducer(cluster)
        await producer.start()
        await rebuild(cluster, database, letters=producer, drop=drop)
        await producer.stop()
        assert (await projecting.tables(database))["entities"] == before


async def test_what_was_told_before_the_logs_start_is_kept(cluster: Cluster, database: str) -> None:
    """A row that a record outside the log began is copied, and what the log says of it is merged anew."""
    await create_topics(cluster, partitions=1)
    await migrate(database)
    await told(
        cluster,
        database,
        [said(0, "customer.created", {"id": 1, "name": "Adam"}), said(1, "customer.x", {"id": 1, "n": 1})],
    )
    before = (await projecting.tables(database))["entities"]
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(cluster.topic("events"), 0): RecordsToDelete(before_offset=1)})
    await admin.close()
    producer = PlainProducer(cluster)
    await producer.start()
    await rebuild(cluster, database, letters=producer)
    assert (await projecting.tables(database))["entities"] == before
    await rebuild(cluster, database, letters=producer, drop=True)
    await producer.stop()
    connection = await asyncpg.connect(database)
    members = await connection.fetchval("SELECT members FROM read.entities WHERE id = '1'")
    await connection.close()
    assert set(json.loads(members)) == {"id", "n"}


async def test_no_value_is_too_much_for_an_index(cluster: Cluster, database: str) -> None:
    """What Postgres refuses would be a dead letter, and its event would not be shown."""
    await create_topics(cluster, partitions=1)
    await migrate(database)
    chance = random.Random(7)

    def text(length: int) -> str:
        return "".join(chance.choices(string.ascii_letters + string.digits + "äß€ ", k=length))

    names = (
        "status",
        "customer_id",
        "customer",
        "name",
        "email",
        "company",
        "number",
        "subject",
        "priority",
        "assignee",
    )
    outputs = [
        said(n, f"{kind}.created", {"id": text(255).strip() + "x", **{name: text(length) for name in names}})
        for n, (kind, length) in enumerate((kind, length) for kind in KINDS for length in (64, 256, 3_000))
    ]
    assert len(await told(cluster, database, outputs)) == len(outputs)
    assert (await projecting.tables(database))["dead_letters"] == []


def test_a_statement_merges_so_many_at_most() -> None:
    rows = Rows()
    rows.entities += [("a", "ticket", f"{n:06}") for n in range(2 * limits.ENTITIES_MERGED_AT_ONCE + 1)]
    assert [len(merged) for _, _, merged in rows.written()] == [1_000, 1_000, 1]
