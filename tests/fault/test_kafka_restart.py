"""The broker is killed and comes back under all three processors at once: nothing lost, and each goes on by itself."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from millrace_core.clock import SystemClock
from millrace_core.errors import Retry
from millrace_core.handling import Handled
from millrace_core.record import Output, Received
from millrace_devstack.kafka import Kafka
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.idempotent import IdempotentProcessor
from millrace_kafka.lanes import Lane, Lanes
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import read_all
from millrace_kafka.store import MemoryStores
from millrace_kafka.transactional import TransactionalProcessor
from tests.support.counting import INPUTS, Counting
from tests.support.processing import producing, running, viewing
from tests.support.waiting import eventually

EVENTS = 600


class Matching:
    """Each event asks for a delivery and a run."""

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes, int]]) -> None: ...
    def forget(self, partition: int) -> None: ...

    def tally(self) -> Sequence[Output]:
        return ()

    def handle(self, records: Sequence[Received], position: int) -> Handled:
        outputs = [Output("deliveries", r.key, r.value) for r in records]
        outputs += [Output("run-commands", r.key, r.value) for r in records]
        return Handled(outputs, [Output("event-facts", r.key, r.value) for r in records], [])


async def work(record: Received) -> Sequence[Output]:
    return [Output("delivery-facts", record.key, record.value)]


async def names(cluster: Cluster, topic: str) -> Counter[bytes]:
    return Counter((record.value or b"").split()[-1] for record in await read_all(cluster, [topic]))


async def feed(producer: PlainProducer, written: asyncio.Event) -> None:
    """Post each event until it is acked, as a client that waits for its 202 does."""
    for n in range(EVENTS):
        while True:
            try:
                await producer.write([Output("events", b"key-%d" % (n % 7), b"%d" % n)])
                break
            except Retry:
                await asyncio.sleep(0.1)
        if n == EVENTS // 3:
            written.set()
        await asyncio.sleep(0.002)


async def test_all_processors_outlive_their_broker(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path / "kafka", heap="320m")
    await kafka.start()
    cluster = Cluster(kafka.bootstrap, f"t{secrets.token_hex(4)}")
    try:
        await create_topics(cluster, partitions=2)
        async with producing(cluster) as producer, viewing(cluster) as view:
            matcher = IdempotentProcessor(
                cluster,
                group="matcher",
                topic="events",
                changelog="matcher-changelog",
                handler=Matching(),
                view=view,
                producer=producer,
                clock=SystemClock(),
            )
            orchestrator = TransactionalProcessor(
                cluster,
                group="orchestrator",
                inputs=INPUTS,
                changelog="orchestrator-changelog",
                handler=lambda _: Counting(),
                store=MemoryStores(),
                clock=SystemClock(),
            )
            dispatcher = Lanes(
                cluster,
                group="dispatcher",
                topics=("deliveries", "deliveries-tx", "deliveries-overflow"),
                lane=lambda record: Lane("a", (record.key or b"").decode(), ordered=True),
                work=work,
                producer=producer,
            )
            async with running(matcher), running(orchestrator), running(dispatcher), asyncio.TaskGroup() as tasks:
                written = asyncio.Event()
                feeding = tasks.create_task(feed(producer, written))
                await written.wait()
                await kafka.kill()
                await kafka.start()
                await feeding
                expected = {b"%d" % n for n in range(EVENTS)}

                async def all_there() -> bool:
                    for topic in ("event-facts", "delivery-facts", "run-facts"):
                        found = set(await names(cluster, topic))
                        assert found >= expected, (topic, len(found))
                    return True

                await eventually(all_there, timeout_s=90, every_s=0.5)
                await eventually(lambda: matcher.ready() is orchestrator.ready() is dispatcher.ready() is None)
            # Each command that stands on the log was counted once; the matcher may have written one twice.
            assert await names(cluster, "run-facts") == await names(cluster, "run-commands")
            assert set(await names(cluster, "run-facts")) == expected
    finally:
        await kafka.kill()
