"""Large payloads on a real broker and a real Postgres: beside their rows, once, and there again after a rebuild."""

import hashlib
from typing import Any

import asyncpg
import msgspec
import pytest

from millrace_core.errors import Retry
from millrace_core.messages import Delivery, Message, Raw, RunEnded, RunFact, StartRun, StepCompleted, decode, encode
from millrace_core.payloads import reference_to
from millrace_core.record import Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_store import payloads
from millrace_store.migrations import migrate
from millrace_store.pool import connect
from tests.integration.test_projector_rebuilding import rebuilt
from tests.support import projecting, story
from tests.support.projecting import projector, until_projected


def large(name: str) -> bytes:
    return b'{"%b":"%b"}' % (name.encode(), b"x" * 70_000)


def told() -> list[Output]:
    """A whole story whose payloads are large, each another one; and the event posted again, with another body."""
    teller = story.Teller()
    records = [teller.event(0, large("event")), teller.event(0, large("repeated")), *teller.whole(0)[1:]]
    return [_grown(record) for record in records]


def _grown(record: Output) -> Output:
    message: Any = None
    if record.topic == "run-commands":
        message = msgspec.structs.replace(decode(record.value, StartRun), input=Raw(large("input")))
    elif record.topic == "deliveries":
        message = msgspec.structs.replace(decode(record.value, Delivery), body=Raw(large("body")))
    elif record.topic == "run-facts":
        fact: Message = decode(record.value, RunFact)  # type: ignore[arg-type]
        if isinstance(fact, StepCompleted):
            message = msgspec.structs.replace(fact, output=Raw(large("step")))
        elif isinstance(fact, RunEnded):
            message = msgspec.structs.replace(fact, output=Raw(large("output")))
    return record if message is None else msgspec.structs.replace(record, value=encode(message))


@pytest.mark.parametrize("drop", [False, True], ids=["keeping what is older", "from the log alone"])
async def test_large_payloads_lie_beside_their_rows(cluster: Cluster, database: str, drop: bool) -> None:
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, told())
    async with projector(cluster, database):
        await until_projected(cluster, database)
    tables = await projecting.tables(database)
    names = ("event", "repeated", "input", "step", "output", "body")
    assert {row[3] for row in tables["payloads"]} == {large(name) for name in names}
    assert all(hashlib.sha256(row[3]).digest() == row[1] for row in tables["payloads"])  # type: ignore[arg-type]
    connection = await asyncpg.connect(database)
    event = await connection.fetchrow(
        "SELECT properties, control.payload_bytes(properties) AS bytes, properties_json, json_refused FROM read.events"
    )
    await connection.close()
    assert event is not None
    assert event["properties"] == reference_to(large("event"))
    assert (event["bytes"], event["properties_json"]) == (len(large("event")), None)
    assert event["json_refused"] == "it is too large to be searched"
    await rebuilt(cluster, database, drop=drop)
    assert await projecting.tables(database) == tables


async def test_rows_come_back_whole(cluster: Cluster, database: str) -> None:
    await create_topics(cluster)
    await migrate(database)
    await story.append(cluster, told())
    async with projector(cluster, database):
        await until_projected(cluster, database)
    connection = await connect(database, name="test")
    runs = await connection.fetch("SELECT * FROM read.runs")
    (run,) = await payloads.restored(connection, story.ACCOUNT_ID, runs, "input", "output")
    assert (run["input"], run["output"]) == (large("input"), large("output"))
    steps = await connection.fetch("SELECT * FROM read.steps")
    (step,) = await payloads.restored(connection, story.ACCOUNT_ID, steps, "output", owner="run")
    assert step["output"] == large("step")
    small = await connection.fetch("SELECT id, body FROM (SELECT id, '{}'::bytea AS body FROM read.deliveries)")
    assert await payloads.restored(connection, story.ACCOUNT_ID, small, "body") is small
    with pytest.raises(Retry):
        await payloads.restored(connection, "acc_of_another", runs, "input")
    await connection.close()
