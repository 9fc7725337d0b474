"""One record of deliveries, worked on with a sender that answers by script: what is sent, and what is written."""

from typing import Any

import pytest

from millrace_core import egress, limits, signing
from millrace_core.clock import ManualClock
from millrace_core.errors import Reject
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryEnded,
    DeliveryFact,
    SetTimer,
    decode,
)
from millrace_core.record import CONTROL, Output, Written, header, payload_bytes
from millrace_dispatcher.claims import Claims
from millrace_dispatcher.endpoints import Endpoints
from millrace_dispatcher.pausing import Pausing
from millrace_dispatcher.rates import Rates
from millrace_dispatcher.shares import Shares
from millrace_dispatcher.worker import Dispatcher
from millrace_kafka.lanes import Lane
from millrace_runtime.egress import Answer, OutgoingFailed
from tests.support.dispatching import (
    ACC,
    BODY,
    ENDPOINT,
    RING,
    SECRET,
    Meter,
    delivery_of,
    delivery_output,
    endpoint_control,
    read,
)

URL = "https://example.com/hook"


class Script:
    """A sender that answers what stands next, the last one for ever."""

    def __init__(self, *answers: Answer | OutgoingFailed) -> None:
        self.answers = list(answers) or [Answer(200, [], b"ok")]
        self.sent: list[tuple[bytes, bytes]] = []

    async def send(self, target: egress.Target, *, account: str, head: bytes, body: bytes, timeout_s: float) -> Answer:
        assert account == ACC
        assert timeout_s == limits.WEBHOOK_TIMEOUT_S
        self.sent.append((head, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OutgoingFailed):
            raise answer
        return answer


class World:
    """A dispatcher over a script."""

    def __init__(self, *answers: Answer | OutgoingFailed, **control: Any) -> None:
        self.clock = ManualClock()
        self.script = Script(*answers)
        self.pausing, self.rates = Pausing(), Rates()
        self.endpoints = Endpoints(RING, user_agent="Millrace/t", on_change=self._changed)
        self.endpoints.apply(ACC, ENDPOINT, endpoint_control(**{"url": URL, **control}))
        self.meter = Meter()
        self.claims = Claims()
        self.dispatcher = Dispatcher(
            endpoints=self.endpoints,
            pausing=self.pausing,
            claims=self.claims,
            shares=Shares(partition_room=6),
            rates=self.rates,
            sender=self.script,
            clock=self.clock,
            meter=self.meter,
        )
        self.offset = 0

    def _changed(self, endpoint: tuple[str, str]) -> None:
        self.pausing.forget(endpoint)
        self.rates.forget(endpoint)

    async def work(self, wanted: Delivery, **more: Any) -> list[Output]:
        record = read(delivery_output(wanted, **more), offset=self.offset)
        self.offset += 1
        self.dispatcher.see(record)
        return list(await self.dispatcher.work(record))

    async def fact(self, wanted: Delivery, **more: Any) -> Any:
        """The one fact; a timer, if any, was looked at."""
        facts = [output for output in await self.work(wanted, **more) if output.topic == "delivery-facts"]
        assert len(facts) == 1
        assert facts[0].key == wanted.id.encode()
        return decode(facts[0].value, DeliveryFact)  # type: ignore[arg-type]


async def test_a_delivery_is_sent_signed_byte_for_byte_and_its_fact_says_so() -> None:
    world = World()
    fact = await world.fact(delivery_of(), control=7)
    ((head, body),) = world.script.sent
    assert body == BODY
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-1])
    signing.verify(headers, BODY, [SECRET], now_s=world.clock.now_ms() / 1000)
    assert headers["webhook-id"] == delivery_of().id
    assert isinstance(fact, DeliveryAttempted)
    assert (fact.outcome, fact.status, fact.response, fact.attempt) == ("succeeded", 200, "ok", 1)
    assert (fact.url, fact.event, fact.error, fact.retry_at) == (URL, delivery_of().event, None, None)
    assert world.meter.outcomes == ["succeeded"]


async def test_a_failure_writes_its_fact_and_the_timer_of_the_next_attempt() -> None:
    world = World(Answer(500, [], b"no"))
    fact_output, timer_output = await world.work(delivery_of(), control=7)
    fact = decode(fact_output.value, DeliveryAttempted)
    assert (fact.outcome, fact.response) == ("retrying", "no")
    timer = decode(timer_output.value, SetTimer)
    assert timer_output.topic == "timers"
    assert timer_output.key == timer.owner.encode() == delivery_of().id.encode()
    assert (timer.topic, timer.key, timer.account, timer.due) == ("deliveries-tx", ENDPOINT, ACC, fact.retry_at)
    following = decode(bytes(timer.record), Delivery)
    assert following.attempt == 2
    assert bytes(following.body) == BODY
    assert timer.payload_at is not None
    assert bytes(timer.record)[timer.payload_at : -1] == BODY
    assert header(read(timer_output), CONTROL) == b"7"
    assert payload_bytes(read(timer_output)) == bytes(timer.record)


async def test_a_repeat_of_an_attempt_sets_the_same_timer() -> None:
    ids = set()
    for _ in range(2):
        world = World(Answer(500))
        _, timer = await world.work(delivery_of())
        ids.add(decode(timer.value, SetTimer).id)
    assert len(ids) == 1
    _, other = await World(Answer(500)).work(delivery_of(attempt=2))
    assert decode(other.value, SetTimer).id not in ids


async def test_the_whole_schedule_ends_in_failed() -> None:
    world = World(OutgoingFailed("connect_failed", "nobody listens"))
    outcomes = []
    for attempt in range(1, len(limits.WEBHOOK_RETRY_SCHEDULE_S) + 2):
        fact = await world.fact(delivery_of(attempt=attempt))
        outcomes.append((fact.outcome, fact.error.code, fact.status))
    assert outcomes[:-1] == [("retrying", "connect_failed", None)] * 8
    assert outcomes[-1] == ("failed", "connect_failed", None)


async def test_an_endpoint_s_own_schedule_counts() -> None:
    world = World(Answer(500), retry_schedule_s=(1.0,))
    assert (await world.fact(delivery_of())).outcome == "retrying"
    assert (await world.fact(delivery_of(attempt=2))).outcome == "failed"


async def test_gone_is_failed_at_once() -> None:
    fact = await World(Answer(410)).fact(delivery_of())
    assert (fact.outcome, fact.error.code, fact.retry_at) == ("failed", "http_410", None)


@pytest.mark.parametrize(
    ("apply", "says"),
    [(None, "deleted"), (endpoint_control(URL, enabled=False), "disabled"), (b"garbage", "deleted")],
)
async def test_without_an_endpoint_the_delivery_is_cancelled(apply: bytes | None, says: str) -> None:
    world = World()
    world.endpoints.apply(ACC, ENDPOINT, apply)
    fact = await world.fact(delivery_of())
    assert isinstance(fact, DeliveryEnded)
    assert fact.outcome == "cancelled"
    assert says in fact.reason
    assert world.script.sent == []


async def test_another_account_s_endpoint_is_not_delivered_to() -> None:
    world = World()
    fact = await world.fact(delivery_of(account="acc_2"))
    assert fact.outcome == "cancelled"
    assert world.script.sent == []


async def test_an_endpoint_that_cannot_be_used_is_tried_again_later() -> None:
    world = World(url="http://127.0.0.1/")
    fact = await world.fact(delivery_of())
    assert (fact.outcome, fact.error.code) == ("retrying", "endpoint_unusable")
    assert "loopback" in fact.error.message
    assert world.script.sent == []


async def test_a_repeat_is_dropped_and_a_stale_one_ended() -> None:
    world = World()
    await world.work(delivery_of(1), source=limits.SOURCE_WINDOW_OFFSETS + 100)
    assert await world.work(delivery_of(1), source=limits.SOURCE_WINDOW_OFFSETS + 100) == []
    fact = await world.fact(delivery_of(2), source=5)
    assert (fact.outcome, len(world.script.sent)) == ("stale", 1)


async def test_the_breaker_puts_deliveries_off_and_lets_one_probe_through() -> None:
    world = World(OutgoingFailed("timeout", "no answer"))
    for n in range(limits.BREAKER_STREAK):
        await world.fact(delivery_of(n))
    fact = await world.fact(delivery_of(100))
    assert (fact.outcome, fact.error.code, fact.status) == ("retrying", "endpoint_paused", None)
    assert fact.retry_at >= world.clock.now_ms() + limits.BREAKER_OPEN_MS
    assert len(world.script.sent) == limits.BREAKER_STREAK
    world.clock.advance(limits.BREAKER_OPEN_MS / 1000)
    world.script.answers = [Answer(200)]
    assert (await world.fact(delivery_of(101))).outcome == "succeeded"
    assert (await world.fact(delivery_of(102))).outcome == "succeeded"


async def test_the_last_attempt_is_made_though_the_breaker_is_open() -> None:
    world = World(Answer(500))
    for n in range(limits.BREAKER_STREAK):
        await world.fact(delivery_of(n))
    fact = await world.fact(delivery_of(100, attempt=9))
    assert (fact.outcome, fact.error.code) == ("failed", "http_500")


async def test_a_changed_endpoint_begins_with_a_closed_breaker() -> None:
    world = World(Answer(500))
    for n in range(limits.BREAKER_STREAK):
        await world.fact(delivery_of(n))
    world.endpoints.apply(ACC, ENDPOINT, endpoint_control("https://example.com/new"))
    world.script.answers = [Answer(200)]
    assert (await world.fact(delivery_of(100))).outcome == "succeeded"


async def test_an_overloaded_endpoint_gets_fewer_at_once() -> None:
    world = World(Answer(429))
    record = read(delivery_output(delivery_of()))
    assert world.dispatcher.lane(record).concurrency == 32
    await world.work(delivery_of())
    assert world.dispatcher.lane(record).concurrency == 16
    assert world.dispatcher.lane(record).key == ENDPOINT
    assert world.dispatcher.lane(record).account == ACC


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"[]", b"{}", b'{"id":"x","account":"a","endpoint":"e","event":"v","type":"t"}',
     b'{"id":"x\\r\\ny: z_00000000000000000000000000000001","account":"a","endpoint":"e","event":"v","type":"t"}',
     b'{"id":"dlv_00000000000000000000000000000001","account":"a","endpoint":"e","event":"v\\r\\n","type":"t"}',
     b'{"id":"dlv_00000000000000000000000000000001","account":"a","endpoint":"e","event":"v","type":"t","attempt":99}',
     b'{"id":"dlv_00000000000000000000000000000001","account":"a","endpoint":"e","event":"v","type":"t","attempt":0}'],
)  # fmt: skip
async def test_a_record_that_is_no_delivery_is_rejected(value: bytes) -> None:
    world = World()
    record = Written("deliveries", 0, 1, 0, None, value, (("source", b"events:0:1"),))
    world.dispatcher.see(record)
    world.dispatcher.lane(record)
    with pytest.raises(Reject):
        await world.dispatcher.work(record)
    with pytest.raises(Reject):
        await world.dispatcher.work(Written("deliveries", 0, 2, 0, b"\xff", None))


async def test_what_the_receiver_says_is_kept_up_to_a_bound_and_as_text() -> None:
    fact = await World(Answer(200, [], b"\x00\xff" + b"x" * 100_000)).fact(delivery_of())
    assert len(fact.response.encode()) <= limits.RESPONSE_KEPT_BYTES_MAX + 8
    assert "\x00" not in fact.response


def told(world: World, wanted: Delivery, *, offset: int, topic: str = "millrace.deliveries.v1") -> tuple[Written, Lane]:
    output = delivery_output(wanted, source=offset)
    record = Written(topic, 0, offset, 0, output.key, output.value, output.headers)
    world.dispatcher.see(record)
    return record, world.dispatcher.lane(record)


async def test_what_is_more_than_a_slow_account_s_share_is_moved_as_it_is() -> None:
    world = World()
    waiting = [told(world, delivery_of(n), offset=n) for n in range(5)]
    assert [lane.key for _, lane in waiting] == [ENDPOINT] * 5
    assert [world.dispatcher.relane(record) for record, _ in waiting] == [None] * 5
    world.clock.advance(limits.OVERFLOW_AFTER_S)
    waiting.append(told(world, delivery_of(5), offset=5))
    assert waiting[-1][1].key is None
    again = [world.dispatcher.relane(record) is not None for record, _ in waiting]
    assert again == [True, True, True, False, False, False]
    for record, _ in (*waiting[:3], waiting[5]):
        (moved,) = await world.dispatcher.work(record)
        assert (moved.topic, moved.key, moved.value, moved.headers) == (
            "deliveries-overflow", record.key, record.value, record.headers,
        )  # fmt: skip
    assert world.script.sent == []
    other = told(world, delivery_of(9, account="acc_2"), offset=9)[1]
    assert (other.account, other.key) == ("acc_2", ENDPOINT)
    for record, _ in waiting[3:5]:
        await world.dispatcher.work(record)
    assert len(world.script.sent) == 2
    assert told(world, delivery_of(10), offset=10)[1].key == ENDPOINT


async def test_what_was_moved_is_delivered_from_there() -> None:
    world = World()
    for n in range(5):
        told(world, delivery_of(n), offset=n)
    record, lane = told(world, delivery_of(4), offset=0, topic="millrace.deliveries-overflow.v1")
    assert lane.key == ENDPOINT
    (fact,) = await world.dispatcher.work(record)
    assert decode(fact.value, DeliveryAttempted).outcome == "succeeded"


def test_what_another_owner_took_over_is_no_longer_counted() -> None:
    world = World()
    for n in range(3):
        told(world, delivery_of(n), offset=n)
    world.clock.advance(limits.OVERFLOW_AFTER_S)
    world.dispatcher.forget("millrace.deliveries.v1", 0)
    assert told(world, delivery_of(7), offset=7)[1].key == ENDPOINT


async def test_what_would_wait_long_for_its_endpoint_s_rate_leaves_for_a_timer_and_loses_no_attempt() -> None:
    world = World(rate=2.0)
    waiting = [told(world, delivery_of(n), offset=n) for n in range(5)]
    assert [lane.key for _, lane in waiting] == [ENDPOINT] * 3 + [None] * 2
    dues = []
    for record, _ in waiting[3:]:
        (output,) = await world.dispatcher.work(record)
        timer = decode(output.value, SetTimer)
        assert (output.topic, timer.topic, timer.key, timer.owner) == (
            "timers", "deliveries-tx", ENDPOINT, output.key.decode() if output.key else "",
        )  # fmt: skip
        following = decode(bytes(timer.record), Delivery)
        assert (following.attempt, following.waits, bytes(following.body)) == (1, 1, BODY)
        dues.append((timer.due - world.clock.now_ms(), timer.id))
    assert [due for due, _ in dues] == [1500, 2000]
    assert world.script.sent == []
    assert world.meter.outcomes == ["postponed"] * 2
    back = read(delivery_output(delivery_of(3)), offset=0)
    back = Written("millrace.deliveries-tx.v1", 0, 0, 0, back.key, back.value, back.headers)
    assert world.dispatcher.lane(back).key is None, "the lane is still full"
    (again,) = await world.dispatcher.work(back)
    assert decode(again.value, SetTimer).due > world.clock.now_ms() + 2000


async def test_what_was_to_leave_when_its_endpoint_changed_is_soon_asked_of_again() -> None:
    world = World(rate=0.01)
    for n in range(3):
        told(world, delivery_of(n), offset=n)
    record, lane = told(world, delivery_of(3), offset=3)
    assert lane.key is None
    world.endpoints.apply(ACC, ENDPOINT, endpoint_control(URL, rate=100.0))
    (output,) = await world.dispatcher.work(record)
    assert decode(output.value, SetTimer).due == world.clock.now_ms() + limits.RATE_WAIT_S * 1000


async def test_a_lane_is_held_back_until_its_endpoint_may_be_called_again() -> None:
    world = World(rate=2.0)
    first, second = (told(world, delivery_of(n), offset=n)[0] for n in range(2))
    now_s = world.clock.monotonic()
    assert world.dispatcher.hold(first, now_s) == now_s
    assert now_s < world.dispatcher.hold(second, now_s) <= now_s + 0.5
    world.endpoints.apply(ACC, ENDPOINT, endpoint_control(URL))
    assert world.dispatcher.hold(second, now_s) == now_s, "a rate that was taken away holds nothing back"
    for record in (first, second):
        await world.dispatcher.work(record)
    assert world.rates.waiting == 0
    assert len(world.script.sent) == 2


async def test_what_a_disabled_endpoint_would_have_got_waits_for_no_rate() -> None:
    world = World(rate=0.01, enabled=False)
    records = [told(world, delivery_of(n), offset=n)[0] for n in range(3)]
    facts = [decode((await world.dispatcher.work(record))[0].value, DeliveryEnded) for record in records]
    assert [fact.outcome for fact in facts] == ["cancelled"] * 3
