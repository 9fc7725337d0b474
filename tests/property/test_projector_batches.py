"""Any way of cutting the log into batches, and any order between its partitions, gives the same rows.

The records of a story are dealt to Postgres in random batches that keep only the order inside each partition; facts
come before the rows they speak of, attempts and outcomes come twice, ends contradict each other, a payload is large.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace_core.clock import SystemClock
from millrace_core.messages import (
    DayClosed,
    DayDue,
    DeliveryEnded,
    Event,
    FlowPart,
    Message,
    Raw,
    ReceiptLeaves,
    ReceiptRoot,
    ReceiptSeed,
    RunBundled,
    RunEnded,
    RunWaiting,
    StartRun,
    decode,
    encode,
)
from millrace_core.record import Output, Received
from millrace_kafka.observer import Silent
from millrace_kafka.topics import short_name
from millrace_projector.batches import Batches
from millrace_projector.handlers import TOPICS
from millrace_projector.ports import Untold
from millrace_projector.tables import TABLES
from millrace_store.migrations import migrate
from millrace_store.projection import Place, Projection
from tests.support import projecting, story

TELLER = story.Teller()


class NoLetters:
    async def write(self, outputs: Sequence[Output]) -> None:
        raise AssertionError("nothing here is refused")


def ended(n: int, outcome: Literal["stale", "dead_lettered"]) -> list[Output]:
    run = RunEnded(run=TELLER.run_id(n), account=story.ACCOUNT_ID, at=story.T0 + 77, outcome=outcome)
    delivery = DeliveryEnded(
        delivery=TELLER.delivery_id(n),
        account=story.ACCOUNT_ID,
        endpoint=story.ENDPOINT,
        event=TELLER.event_id(n),
        at=story.T0 + 77,
        outcome=outcome,
        reason="below the window",
    )
    return [
        story.output("run-facts", TELLER.run_id(n), run),
        story.output("delivery-facts", TELLER.delivery_id(n), delivery),
    ]


def receipts() -> list[Output]:
    """A day that was closed twice, and once otherwise."""
    seeds = [ReceiptSeed(seed=seed * 32) for seed in (b"s", b"t")]
    roots = [
        ReceiptRoot(account=story.ACCOUNT_ID, day=0, leaves=1, root=chain * 32, previous=bytes(32), chain=chain * 32)
        for chain in (b"a", b"a", b"b", b"c", b"a")
    ]
    chunks = [
        ReceiptLeaves(account=story.ACCOUNT_ID, day=0, first=0, root=b"r" * 32, entries=content * 88)
        for content in (b"1", b"2")
    ]
    closed = [DayClosed(day=0, accounts=1, facts=facts, ends=(("run-facts", 0, 7),)) for facts in (1, 2)]
    key = story.ACCOUNT_ID.encode()
    return [
        *(Output("receipt-roots", None, encode(one)) for one in (*seeds, DayDue(day=0), *closed)),
        *(Output("receipt-roots", key, encode(root)) for root in roots),
        *(Output("receipt-leaves", key, encode(chunk)) for chunk in chunks),
    ]


def held(n: int) -> list[Output]:
    """What a flow told of a run before it went on as part of another, and of that one."""
    run, into, at = TELLER.run_id(n), TELLER.run_id(n + 1), story.T0 + 50
    common: dict[str, Any] = {"account": story.ACCOUNT_ID, "at": at}
    waits: dict[str, Any] = {"subscription": story.SUBSCRIPTION, "key": "k\0"}
    facts: list[Message] = [
        RunWaiting(**common, **waits, run=run, reason="debounce", until=at + 5),
        RunWaiting(**common, **waits, run=run, reason="drain"),
        RunEnded(**common, run=run, outcome="absorbed", into=into),
        RunWaiting(**common, **waits, run=into, reason="throttle", until=at + 9),
        RunBundled(**common, run=into, input=Raw(b"[1, 2.0]")),
    ]
    return [story.output("run-facts", fact.run, fact) for fact in facts]  # type: ignore[attr-defined]


def with_flow(start: Output) -> Output:
    part = FlowPart(key="k", priority=1, partition=0, offset=0, at=story.T0)
    command = msgspec.structs.replace(decode(start.value, StartRun), flow=part)
    return msgspec.structs.replace(start, value=encode(command))


def ops(n: int, name: str, properties: bytes, *, again: int | None = None) -> Output:
    """An event about a customer or the like, in a partition of its own choice; `again`: a repeat of that one."""
    event = Event(
        id=TELLER.event_id(1_000 + (n if again is None else again)),
        account=story.ACCOUNT_ID,
        identifier=f"e:ops/{name}",
        received_at=story.T0 + n,
        properties=Raw(properties),
    )
    return story.output("events", event.id, event)


def things() -> list[Output]:
    """Things told of by events of several partitions, one posted twice, one erased and told of again."""
    return [
        ops(0, "customer.created", b'{"id": 1, "name": "Adam", "plan": "pro", "created_at": "2020-01-01"}'),
        ops(1, "customer.updated", b'{"id": "1", "name": "Adam Smith", "tags": ["a"], "z": "\\u0000"}'),
        ops(2, "ticket.created", b'{"id": 7, "subject": "S", "customer": {"id": 1, "email": "a@b"}}'),
        ops(3, "customer.created", b'{"id": 1, "name": "Adam posted again", "city": "X"}', again=0),
        ops(4, "customer.deleted", b'{"id": 2}'),
        ops(5, "customer.updated", b'{"id": 2, "name": "Eve"}'),
        ops(6, "customer.created", b'{"id": 3, "name": "Abel"}'),
        ops(7, "customer.deleted", b'{"id": 3}'),
        ops(8, "invoice.paid", b'{"id": "in_1", "customer_id": 1, "amount": 12.50}'),
        ops(9, "ticket.updated", b'{"id": 7, "status": "closed"}'),
    ]


def told() -> list[Received]:
    outputs = [
        *ended(0, "dead_lettered"),  # and then sent again
        *TELLER.whole(0),
        *TELLER.whole(1),
        *ended(1, "stale"),  # after its end
        TELLER.event(1, b'{"filling":"%b"}' % (b"x" * 70_000)),  # a repeat of its uniqueKey, with a large body
        TELLER.matched(1),
        TELLER.delivery(1, attempt=2, topic="deliveries-tx"),
        TELLER.attempted(1, "failed", attempt=2, status=500),  # the attempt was made twice
        *ended(2, "stale"),  # before anything else is known
        TELLER.start_run(2),
        *TELLER.run_facts(2)[:4],
        TELLER.delivery(2),
        TELLER.attempted(2, "retrying", status=429),
        *receipts(),
        *held(3),  # before they are asked for
        TELLER.start_run(3),
        TELLER.start_run(4),
        with_flow(TELLER.start_run(4)),  # the matcher died, and the subscription had a flow when it came again
        with_flow(TELLER.start_run(5)),
        TELLER.start_run(5),
        *TELLER.run_facts(4),
        *things(),
    ]
    came = enumerate(story.received(outputs))
    return [msgspec.structs.replace(one, timestamp=one.timestamp + n) for n, one in came]  # type: ignore[type-var]


RECORDS = told()
PLACES = sorted({(short_name(record.topic), record.partition) for record in RECORDS})


@st.composite
def batches(draw: st.DrawFn) -> list[list[int]]:
    """All records, by number, in batches; each takes some of the next records of some partitions."""
    queues: dict[Place, list[int]] = {place: [] for place in PLACES}
    for number, record in enumerate(RECORDS):
        queues[short_name(record.topic), record.partition].append(number)
    cut: list[list[int]] = []
    while left := [place for place in PLACES if queues[place]]:
        taken: list[int] = []
        for place in draw(st.lists(st.sampled_from(left), min_size=1, max_size=4, unique=True)):
            count = draw(st.integers(1, len(queues[place])))
            taken += queues[place][:count]
            del queues[place][:count]
        cut.append(taken)
    return cut


async def dealt(database: str, cut: list[list[int]]) -> dict[str, list[tuple[object, ...]]]:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(f"TRUNCATE read.positions, {', '.join(f'read.{table.name}' for table in TABLES)}")
        projection = Projection()
        await projection.begin(connection, {(topic, number): 0 for topic in TOPICS for number in range(3)})
        writer = Batches(projection, letters=NoLetters(), observer=Silent(), told=Untold(), clock=SystemClock())
        await writer.reload(connection)
        for numbers in cut:
            records = [RECORDS[number] for number in numbers]
            ends: dict[Place, int] = {}
            for record in records:
                ends[short_name(record.topic), record.partition] = record.offset + 1
            await writer.write(connection, records, ends)
        return await projecting.tables(database)
    finally:
        await connection.close()


@pytest.fixture
async def migrated(database: str) -> str:
    await migrate(database)
    return database


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=batches())
async def test_any_cut_gives_the_rows_of_one_batch(migrated: str, cut: list[list[int]]) -> None:
    assert await dealt(migrated, cut) == await dealt(migrated, [list(range(len(RECORDS)))])


async def test_what_events_tell_of_a_thing_is_put_together(migrated: str) -> None:
    rows = (await dealt(migrated, [list(range(len(RECORDS)))]))["entities"]
    found = {
        (kind, id): {name: told[1] for name, told in json.loads(str(members)).items()}
        for _, kind, id, _, _, _, _, members, *_ in rows
    }
    adam = {"id": "1", "name": "Adam Smith", "plan": "pro", "tags": ["a"], "z": "", "email": "a@b"}
    assert found == {
        ("customer", "1"): adam,
        ("customer", "2"): {"id": "2", "name": "Eve"},
        ("customer", "3"): {},
        ("invoice", "in_1"): {"id": "in_1", "customer_id": "1", "amount": 12.5, "status": "paid"},
        ("ticket", "7"): {"id": "7", "subject": "S", "customer_id": "1", "status": "closed"},
    }
