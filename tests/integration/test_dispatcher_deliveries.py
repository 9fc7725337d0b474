"""The dispatcher as its wiring makes it, on a real broker, posting to real receivers that behave badly."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import combinations

import pytest
import structlog
from pydantic import SecretStr
from standardwebhooks import Webhook

from millrace_core import limits
from millrace_core.clock import SystemClock
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryEnded,
    DeliveryFact,
    SetTimer,
    decode,
)
from millrace_core.record import Output, header
from millrace_dispatcher.settings import DispatcherSettings
from millrace_dispatcher.wiring import wire
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_kafka.ticker import TICK
from millrace_kafka.topics import partition_of
from millrace_runtime.metrics import Metrics, MetricsObserver
from millrace_runtime.service import Context
from tests.support.dispatching import (
    ACC,
    BODY,
    ENDPOINT,
    RING_TEXT,
    SECRET,
    delivery_of,
    delivery_output,
    endpoint_control,
)
from tests.support.receiver import Answer, Receiver, Request, answers, answers_status, receiving
from tests.support.task_services import living, scheduling
from tests.support.waiting import eventually


class World:
    """A log with an endpoint on `control`, and what came out of it."""

    def __init__(self, cluster: Cluster, producer: PlainProducer, control: ControlWriter) -> None:
        self.cluster = cluster
        self.producer = producer
        self.control = control
        self.version = 0

    async def endpoint(self, value: bytes | None, *, id: str = ENDPOINT) -> int:
        self.version += 1
        return await self.control.write([("endpoint", ACC, id, self.version, value)])

    async def ask(self, *wanted: Delivery, first_source: int = 0, control: int | None = None) -> None:
        outputs = [delivery_output(one, source=first_source + n, control=control) for n, one in enumerate(wanted)]
        await self.producer.write(outputs)

    async def facts(self) -> list[DeliveryAttempted | DeliveryEnded]:
        return [decode(read.value, DeliveryFact) for read in await read_all(self.cluster, ["delivery-facts"])]  # type: ignore[arg-type]

    async def told(self, count: int, *, timeout_s: float = 20) -> list[DeliveryAttempted | DeliveryEnded]:
        """All facts, as soon as there are so many of different attempts: after a crash one may be told again."""

        async def enough() -> list[DeliveryAttempted | DeliveryEnded]:
            found = await self.facts()
            told = {(one.delivery, getattr(one, "attempt", None)) for one in found}
            assert len(told) >= count, f"{len(told)} of {count} facts"
            return found

        return await eventually(enough, timeout_s=timeout_s, every_s=0.05)


@pytest.fixture
async def world(cluster: Cluster) -> AsyncIterator[World]:
    await create_topics(cluster, partitions=2)
    producer, control = PlainProducer(cluster), ControlWriter(cluster)
    await producer.start()
    await control.start()
    yield World(cluster, producer, control)
    await control.stop()
    await producer.stop()


@asynccontextmanager
async def dispatching(world: World, *, clean: bool = True, instance: str = "one") -> AsyncIterator[Context]:
    """A dispatcher that is ready; ends with the block: drained, or (not `clean`) as if killed."""
    settings = DispatcherSettings(
        kafka=world.cluster.bootstrap, namespace=world.cluster.namespace, instance=instance,
        key_ring=SecretStr(RING_TEXT), egress_allow="127.0.0.0/8",
    )  # fmt: skip
    log, metrics = structlog.get_logger(), Metrics()
    context = Context(
        name="dispatcher", instance=instance, clock=SystemClock(), log=log, metrics=metrics,
        observer=MetricsObserver(metrics, log),
    )  # fmt: skip
    workers = await wire(settings, context)
    running = [asyncio.ensure_future(worker(context.stop)) for worker in workers.values()]
    context.health.started()
    try:
        await eventually(lambda: not context.health.reasons(), timeout_s=20)
        yield context
    finally:
        if clean:
            context.stop.set()
            await asyncio.wait_for(asyncio.gather(*running), 25)
        else:
            for one in running:
                one.cancel()
            await asyncio.wait(running)
        await context.stack.aclose()


async def one_fact(world: World, answer: Answer, **control: object) -> tuple[DeliveryAttempted, Receiver]:
    """What becomes of one delivery to a receiver that answers so."""
    async with receiving(answer) as receiver:
        timeout_s = 0.5 if answer is hangs else 10.0
        await world.endpoint(endpoint_control(receiver.url(), **{"timeout_s": timeout_s, **control}))  # type: ignore[arg-type]
        async with dispatching(world):
            await world.ask(delivery_of())
            (fact,) = await world.told(1)
        assert isinstance(fact, DeliveryAttempted)
        return fact, receiver


async def test_a_webhook_arrives_and_the_official_library_accepts_it(world: World) -> None:
    fact, receiver = await one_fact(world, answers_status(200, body=b"thanks"))
    (request,) = receiver.requests
    assert request.body == BODY
    Webhook(SECRET).verify(request.body, request.headers)
    assert request.headers["webhook-id"] == fact.delivery
    assert request.headers["user-agent"].startswith("Millrace/")
    assert (fact.outcome, fact.status, fact.response) == ("succeeded", 200, "thanks")
    (read,) = await read_all(world.cluster, ["delivery-facts"])
    source = header(read, "source")
    assert source is not None
    assert b".deliveries.v1:" in source


async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def resets(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.close()


async def floods(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
    for _ in range(1600):
        writer.write(b"x" * 65536)
        await writer.drain()


async def timers_set(world: World) -> list[SetTimer]:
    """The timers on the log, without the ticks by which the dispatcher asks for the time."""
    records = await read_all(world.cluster, ["timers"])
    return [decode(one.value, SetTimer) for one in records if one.key != TICK.key]


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (hangs, "retrying", "timeout"),
        (resets, "retrying", "connection_lost"),
        (answers(b"\x16\x03\x01 garbage\r\n\r\n"), "retrying", "bad_response"),
        (floods, "succeeded", None),
        (answers_status(500), "retrying", "http_500"),
        (answers_status(302, headers="location: http://127.0.0.1:1/\r\n"), "retrying", "http_302"),
        (answers_status(410), "failed", "http_410"),
    ],
    ids=["hangs", "resets", "garbage", "100 MB", "500", "redirect", "gone"],
)
async def test_every_way_a_receiver_behaves_is_decided(
    world: World, answer: Answer, outcome: str, code: str | None
) -> None:
    fact, receiver = await one_fact(world, answer)
    assert fact.outcome == outcome
    assert (fact.error.code if fact.error else None) == code
    assert len(receiver.requests) == 1
    timers = await timers_set(world)
    assert len(timers) == (1 if outcome == "retrying" else 0)
    for timer in timers:
        assert timer.due == fact.retry_at
        assert decode(bytes(timer.record), Delivery).attempt == 2
    assert len((fact.response or "").encode()) <= limits.RESPONSE_KEPT_BYTES_MAX


async def test_a_retry_waits_on_the_log_and_comes_back_through_the_scheduler(world: World) -> None:
    """Fails twice, then works: three attempts under one id, whoever lives or dies meanwhile."""
    async with receiving(answers_status(502)) as receiver, living(scheduling(world.cluster)) as scheduler:
        await world.endpoint(endpoint_control(receiver.url(), retry_schedule_s=(0.2, 2.0, 0.2)))
        async with dispatching(world, clean=False):
            await world.ask(delivery_of())
            await world.told(1)
        await scheduler.ready()
        async with dispatching(world):
            await world.told(2)
            receiver.answer = answers_status(200)
            facts = await world.told(3)
    attempts = {fact.attempt: fact.outcome for fact in facts if isinstance(fact, DeliveryAttempted)}
    assert list(attempts.values())[-1] == "succeeded"
    assert set(list(attempts.values())[:-1]) == {"retrying"}
    assert {request.headers["webhook-id"] for request in receiver.requests} == {delivery_of().id}
    assert {request.body for request in receiver.requests} == {BODY}
    for request in receiver.requests:
        Webhook(SECRET).verify(request.body, request.headers)


async def test_a_delivery_waits_for_the_control_position_it_was_decided_on(world: World) -> None:
    """200 changes of the URL, each followed at once by a delivery stamped with it: every one goes to the new place."""
    async with receiving() as receiver, dispatching(world):
        for n in range(50):
            position = await world.endpoint(endpoint_control(receiver.url(f"/{n}")))
            await world.ask(delivery_of(n), first_source=n, control=position)
        await world.told(50)
        where = {request.headers["webhook-id"]: request.line.split()[1] for request in receiver.requests}
        assert where == {delivery_of(n).id: f"/{n}" for n in range(50)}


async def test_repeats_are_delivered_once_also_by_the_next_owner(world: World) -> None:
    wanted = [delivery_of(n) for n in range(40)]
    async with receiving() as receiver:
        await world.endpoint(endpoint_control(receiver.url()))
        async with dispatching(world):
            await world.ask(*wanted)
            await world.ask(*wanted[:20])
            await world.told(40)
        async with dispatching(world):
            await world.ask(*wanted)
            await world.ask(delivery_of(99), first_source=99)
            await world.told(41)
        ids = [request.headers["webhook-id"] for request in receiver.requests]
        assert sorted(ids) == sorted({one.id for one in wanted} | {delivery_of(99).id})


def more_than(receiver: Receiver, count: int) -> bool:
    return len(receiver.requests) > count


async def test_a_dispatcher_that_dies_in_the_middle_delivers_again_under_the_same_id(world: World) -> None:
    wanted = [delivery_of(n) for n in range(30)]
    async with receiving() as receiver:
        await world.endpoint(endpoint_control(receiver.url()))
        for _ in range(3):
            async with dispatching(world, clean=False):
                if not receiver.requests:
                    await world.ask(*wanted)
                seen = min(len(receiver.requests), 29)
                await eventually(partial(more_than, receiver, seen))
        async with dispatching(world):
            facts = await world.told(30)
        assert {fact.delivery for fact in facts} == {one.id for one in wanted}
        assert {request.headers["webhook-id"] for request in receiver.requests} == {one.id for one in wanted}


async def test_an_endpoint_never_gets_more_at_once_than_it_wants(world: World) -> None:
    async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with receiving(slow) as receiver:
        await world.endpoint(endpoint_control(receiver.url(), concurrency=3))
        async with dispatching(world):
            await world.ask(*(delivery_of(n) for n in range(60)))
            await world.told(60)
        assert receiver.in_flight_max == 3


async def test_an_account_whose_endpoint_hangs_holds_up_nobody_else(world: World) -> None:
    """More deliveries than the buffer holds stand before the other account's on the log."""
    many = limits.LANES_BUFFERED_MAX * 2
    async with receiving(hangs) as bad, receiving() as good:
        await world.endpoint(endpoint_control(bad.url(), timeout_s=60))
        await world.control.write([("endpoint", "acc_2", ENDPOINT, 1, endpoint_control(good.url(), account="acc_2"))])
        async with dispatching(world, clean=False):
            await world.ask(*(delivery_of(n) for n in range(many)))
            await world.ask(*(delivery_of(many + n, account="acc_2") for n in range(20)), first_source=many)
            await eventually(lambda: len(good.requests) == 20, timeout_s=15)
        assert len(await read_all(world.cluster, ["deliveries-overflow"])) >= many - limits.LANES_BUFFERED_MAX
        bad.answer = answers_status(200)
        bad.close_connections()
        async with dispatching(world):
            ended = await world.told(many + 20, timeout_s=60)
        assert {fact.delivery for fact in ended} == {delivery_of(n).id for n in range(many + 20)}


async def test_an_endpoint_is_called_no_more_often_than_its_rate_allows(world: World) -> None:
    """What is too much for a lane leaves through the scheduler and comes back; the endpoint beside it, in the same
    partition, waits for nothing."""
    count, rate = 30, 10.0
    own = partition_of(ENDPOINT.encode(), 2)
    beside = next(f"we_{n}" for n in range(2, 100) if partition_of(f"we_{n}".encode(), 2) == own)
    async with receiving() as slow, receiving() as quick, living(scheduling(world.cluster)) as scheduler:
        await scheduler.ready()
        await world.endpoint(endpoint_control(slow.url(), rate=rate))
        await world.control.write([("endpoint", ACC, beside, 1, endpoint_control(quick.url(), id=beside))])
        async with dispatching(world):
            await world.ask(*(delivery_of(n) for n in range(count)))
            await world.ask(*(delivery_of(count + n, endpoint=beside) for n in range(count)), first_source=count)
            await eventually(lambda: len(quick.requests) == count)
            assert len(slow.requests) < count, "it waited for nothing of the other"
            facts = await world.told(2 * count)
            assert not (await read_all(world.cluster, ["deliveries-overflow"]))
    assert {(fact.attempt, fact.outcome) for fact in facts if isinstance(fact, DeliveryAttempted)} == {(1, "succeeded")}
    called = sorted(fact.at for fact in facts if fact.endpoint == ENDPOINT)
    assert len(called) == len({request.headers["webhook-id"] for request in slow.requests}) == count
    for first, last in combinations(range(count), 2):
        allowed = 1 + ((called[last] - called[first]) / 1000 + limits.RATE_BURST_S) * rate
        assert last - first + 1 <= allowed + 1, "as far as the loop's clock and the wall's agree"
    timers = await timers_set(world)
    assert len(timers) >= count - 1 - rate * limits.RATE_WAIT_S
    assert {decode(bytes(timer.record), Delivery).attempt for timer in timers} == {1}


async def test_a_rate_that_is_changed_holds_at_once(world: World) -> None:
    async with receiving() as receiver:
        await world.endpoint(endpoint_control(receiver.url(), rate=0.5))
        async with dispatching(world):
            await world.ask(delivery_of(0))
            await world.told(1)
            await world.endpoint(endpoint_control(receiver.url(), rate=1_000.0))
            position = await world.endpoint(endpoint_control(receiver.url(), rate=1_000.0))
            await world.ask(*(delivery_of(n) for n in range(1, 40)), first_source=1, control=position)
            await world.told(40, timeout_s=5)


async def test_garbage_is_parked_and_the_partition_goes_on(world: World) -> None:
    async with receiving() as receiver:
        await world.endpoint(endpoint_control(receiver.url()))
        known = delivery_output(delivery_of(1), source=1)
        bad: Sequence[Output] = [
            Output("deliveries", ENDPOINT.encode(), b"\xff garbage", ()),
            Output("deliveries", b"we_018f0000000070008000000000000009", b"{}", known.headers),
            Output("deliveries", None, None, ()),
        ]
        async with dispatching(world):
            await world.producer.write(bad)
            await world.ask(delivery_of(7), first_source=7)
            facts = await world.told(2)
        letters = await read_all(world.cluster, ["dead-letters"])
        assert len(letters) == 3
        assert all(header(letter, "dead-reason") for letter in letters)
        ends = {fact.delivery: fact.outcome for fact in facts}
        assert ends == {delivery_of(1).id: "dead_lettered", delivery_of(7).id: "succeeded"}


async def test_metrics_say_what_happened(world: World) -> None:
    async with receiving(answers_status(503)) as receiver:
        await world.endpoint(endpoint_control(receiver.url()))
        async with dispatching(world) as context:
            await world.ask(*(delivery_of(n) for n in range(30)))
            await world.told(30)
            text = context.metrics.exposition().decode()

    def value(line: str) -> float:
        return float(next(found.split()[-1] for found in text.splitlines() if found.startswith(line)))

    sent = value('millrace_dispatcher_attempts_total{outcome="retrying"}')
    assert sent == len(receiver.requests) >= limits.BREAKER_STREAK
    assert value('millrace_dispatcher_breakers{state="open"}') == 1
