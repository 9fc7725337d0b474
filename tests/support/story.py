"""Stories on the log: the records that services would write of some events, for tests of what reads them.

`Teller` makes the records, `append` puts them on a broker as they are, whoever the catalogue wants as writer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from millrace_core import ids
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryChild,
    ErrorInfo,
    Event,
    EventFact,
    EventRef,
    Message,
    Raw,
    RunChild,
    RunEnded,
    RunStarted,
    StartRun,
    StepCompleted,
    StepFailed,
    StepStarted,
    encode,
)
from millrace_core.record import ACCOUNT, ID, SOURCE, Output, Received, Written
from millrace_kafka.client import Cluster
from millrace_kafka.topics import CATALOGUE, partition_of

ACCOUNT_ID = "acc_" + "a" * 32
SUBSCRIPTION = "sub_" + "5" * 32
ENDPOINT = "we_" + "e" * 32
PLAN = Raw(b'{"id":"job_%b","kind":"job","version":3,"name":"Send a mail","nodes":[],"edges":[]}' % (b"7" * 32))
T0 = 1_790_000_000_000


def output(topic: str, key: str, message: Message, *, source: str | None = None, route: bytes | None = None) -> Output:
    """A record with the headers every record has."""
    headers = [(ACCOUNT, ACCOUNT_ID.encode()), (ID, key.encode())]
    if source is not None:
        headers.append((SOURCE, source.encode()))
    return Output(topic, key.encode(), encode(message), tuple(headers), route)


@dataclass
class Teller:
    """Makes records about events numbered from 0. Ids follow from the number, so that a story can be told again."""

    partitions: int = 3
    start_ms: int = T0
    offsets: list[int] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def event_id(self, n: int) -> str:
        return ids.derived_id(ids.EVENT, self.start_ms + n, "event", str(n))

    def run_id(self, n: int) -> str:
        return ids.run_id_of(self.event_id(n), SUBSCRIPTION)

    def delivery_id(self, n: int) -> str:
        return ids.delivery_id_of(self.event_id(n), ENDPOINT)

    def source(self, n: int) -> str:
        """Where `event(n)` stands, if events are appended once each in the order of their numbers."""
        for number in range(len(self.offsets), n + 1):
            partition = partition_of(self.event_id(number).encode(), self.partitions)
            self.offsets.append(self.counts.get(partition, 0))
            self.counts[partition] = self.offsets[number] + 1
        return f"events:{partition_of(self.event_id(n).encode(), self.partitions)}:{self.offsets[n]}"

    def event(self, n: int, properties: bytes = b'{"total":12.50,"items":["a","b"],"note":"thank you"}') -> Output:
        event = Event(
            id=self.event_id(n),
            account=ACCOUNT_ID,
            identifier="e:shop/order",
            received_at=self.start_ms + n,
            properties=Raw(properties),
        )
        return output("events", self.event_id(n), event)

    def matched(self, n: int, *, runs: bool = True, deliveries: bool = True) -> Output:
        fact = EventFact(
            event=self.event_id(n),
            account=ACCOUNT_ID,
            outcome="matched" if runs or deliveries else "unmatched",
            at=self.start_ms + n + 1,
            runs=(RunChild(id=self.run_id(n), subscription=SUBSCRIPTION),) if runs else (),
            deliveries=(DeliveryChild(id=self.delivery_id(n), subscription=SUBSCRIPTION, endpoint=ENDPOINT),)
            if deliveries
            else (),
        )
        return output("event-facts", self.event_id(n), fact, source=self.source(n))

    def start_run(self, n: int) -> Output:
        ref = EventRef(id=self.event_id(n), identifier="e:shop/order", received_at=self.start_ms + n)
        command = StartRun(
            run=self.run_id(n),
            account=ACCOUNT_ID,
            plan=PLAN,
            subscription=SUBSCRIPTION,
            event=ref,
            input=Raw(b'{"total":12.50}'),
        )
        return output("run-commands", self.run_id(n), command, source=self.source(n))

    def run_facts(self, n: int) -> list[Output]:
        """A run of one step that fails once and then completes."""
        run, at = self.run_id(n), self.start_ms + n + 2
        common: dict[str, Any] = {"run": run, "account": ACCOUNT_ID}
        error = ErrorInfo(code="HTTP_503", message="busy")
        facts: list[Message] = [
            RunStarted(
                **common, at=at, plan_id="job_" + "7" * 32, plan_kind="job", plan_version=3, subscription=SUBSCRIPTION
            ),
            StepStarted(**common, at=at, node="mail", type="http", attempt=1),
            StepFailed(**common, at=at + 5, node="mail", attempt=1, duration_ms=5.0, error=error, retry_at=at + 1000),
            StepStarted(**common, at=at + 1000, node="mail", type="http", attempt=2),
            StepCompleted(**common, at=at + 1007, node="mail", attempt=2, duration_ms=7.0, output=Raw(b'{"ok":true}')),
            RunEnded(**common, at=at + 1008, outcome="completed", output=Raw(b'{"ok":true}')),
        ]
        return [output("run-facts", run, fact) for fact in facts]

    def delivery(self, n: int, *, attempt: int = 1, topic: str = "deliveries") -> Output:
        delivery = Delivery(
            id=self.delivery_id(n),
            account=ACCOUNT_ID,
            endpoint=ENDPOINT,
            event=self.event_id(n),
            type="order.placed",
            attempt=attempt,
            created_at=self.start_ms + n + 1,
            subscription=SUBSCRIPTION,
            body=Raw(b'{"id":"x","data":{"total":12.50}}'),
        )
        return output(topic, self.delivery_id(n), delivery, source=self.source(n), route=ENDPOINT.encode())

    def attempted(self, n: int, outcome: str = "succeeded", *, attempt: int = 1, status: int = 200) -> Output:
        at = self.start_ms + n + 10 * attempt
        fact = DeliveryAttempted(
            delivery=self.delivery_id(n),
            account=ACCOUNT_ID,
            endpoint=ENDPOINT,
            event=self.event_id(n),
            attempt=attempt,
            at=at,
            outcome=outcome,  # type: ignore[arg-type]
            duration_ms=3.5,
            url="https://example.com/hook",
            status=status,
            response="ok",
            retry_at=at + 5000 if outcome == "retrying" else None,
        )
        return output("delivery-facts", self.delivery_id(n), fact)

    def whole(self, n: int) -> list[Output]:
        """Everything about one event: matched by a run and a delivery, both of which end well."""
        return [
            self.event(n),
            self.start_run(n),
            self.delivery(n),
            self.matched(n),
            *self.run_facts(n),
            self.attempted(n, "retrying", status=503),
            self.attempted(n, attempt=2),
        ]


def received(outputs: Sequence[Output], *, partitions: int = 3, at_ms: int = T0) -> list[Received]:
    """The same records as if they had been read: offsets count up in each partition."""
    ends: dict[tuple[str, int], int] = {}
    found: list[Received] = []
    for one in outputs:
        partition = partition_of(one.route or one.key or b"", partitions)
        offset = ends.get((one.topic, partition), 0)
        ends[one.topic, partition] = offset + 1
        topic = f"millrace.{one.topic}.v1"
        found.append(Written(topic, partition, offset, at_ms, one.key, one.value, one.headers))
    return found


async def append(cluster: Cluster, outputs: Sequence[Output], *, partitions: int = 3) -> None:
    """Put these on the log, in order within each partition."""
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all", linger_ms=2)
    await producer.start()
    try:
        sent = [
            await producer.send(
                cluster.topic(one.topic),
                one.value,
                key=one.key,
                headers=list(one.headers),
                partition=partition_of(one.route or one.key or b"", CATALOGUE[one.topic].partitions or partitions),
            )
            for one in outputs
        ]
        for future in sent:
            await future
    finally:
        await producer.stop()
