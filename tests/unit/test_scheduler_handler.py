"""The scheduler's handler on one partition: set, cancel, fire, repeats, garbage."""

from typing import Any

import pytest

from millrace_core.ids import DAY_MS, timer_id_of
from millrace_core.messages import CancelRun, CancelTimer, Raw, SetTimer, Tick, encode
from millrace_core.record import Output, Written, header
from millrace_core.seen import SourceWindow
from millrace_scheduler.handlers import READ_BACK, SchedulerHandler, timer_key
from tests.support.plans import ACCOUNT, NOW_MS, run_id
from tests.support.records import as_record, record
from tests.support.task import Task

OWNER = run_id()
RECORD = encode(CancelRun(run=OWNER, account=ACCOUNT))


def task(**more: Any) -> Task:
    return Task(lambda: SchedulerHandler(**{name: make() for name, make in more.items()}), READ_BACK)


def timer(n: int = 1, *, due_ms: int = NOW_MS + 1_000, **more: Any) -> SetTimer:
    more = {"topic": "run-commands-tx", "key": OWNER, "account": ACCOUNT, "record": Raw(RECORD), **more}
    return SetTimer(id=timer_id_of(OWNER, "retry", n), owner=OWNER, due=due_ms, **more)


def set_record(
    message: SetTimer, *, offset: int = 0, topic: str = "timers-tx", source: str | None = None, **more: Any
) -> Written:
    return record(topic, offset, message, key=OWNER, id=message.id, source=source, **more)


def cancel_record(message: SetTimer, *, topic: str = "timers-tx") -> Written:
    cancel = CancelTimer(id=message.id, owner=OWNER, account=message.account)
    return record(topic, 99, cancel, key=OWNER, id=message.id)


def test_a_timer_becomes_its_record_when_it_is_due_and_is_forgotten() -> None:
    one = task()
    assert not one.feed(set_record(timer(), offset=7, more=(("control", b"5"),)))
    assert one.handler.next_due_ms() == NOW_MS + 1_000
    assert not one.wake(NOW_MS + 999)
    (output,) = one.wake(NOW_MS + 1_000)
    assert (output.topic, output.key, output.value) == ("run-commands-tx", OWNER.encode(), RECORD)
    read = as_record(output, 0)
    assert [header(read, name) for name in ("account", "id", "control", "p")] == [b"acc_1", OWNER.encode(), b"5", None]
    assert not one.state
    assert one.handler.next_due_ms() is None
    assert not one.wake(NOW_MS + 9_000)


def test_a_records_payload_is_pointed_at() -> None:
    one = task()
    one.feed(set_record(timer(topic="deliveries-tx", key="we_1", payload_at=12)))
    (output,) = one.wake(NOW_MS + 1_000)
    assert (output.topic, output.key) == ("deliveries-tx", b"we_1")
    assert header(as_record(output, 0), "p") == b"12"


def test_a_fired_record_names_no_source_since_timers_fire_out_of_order() -> None:
    # The dispatcher keeps a window over the sources of what it reads: a retry set a day ago would lie below it, and
    # its delivery would end as stale.
    one = task()
    one.feed(set_record(timer(), topic="timers", source="deliveries:0:1"))
    (output,) = one.wake(NOW_MS + 1_000)
    assert header(as_record(output, 0), "source") is None


def test_timers_fire_in_order_and_no_more_than_asked() -> None:
    one = task()
    one.feed(*(set_record(timer(n, due_ms=NOW_MS + 10 - n, record=Raw(b"%d" % n)), offset=n) for n in range(5)))
    first, rest = one.wake(NOW_MS + 50, limit=2), one.wake(NOW_MS + 50)
    assert [len(first), len(rest)] == [2, 3]
    assert [output.value for output in first + rest] == [b"4", b"3", b"2", b"1", b"0"]


def test_what_waits_and_how_late_it_fires_is_told() -> None:
    late_ms: list[int] = []
    one = Task(lambda: SchedulerHandler(fired=late_ms.append), READ_BACK)
    one.feed(set_record(timer(1)), set_record(timer(2, due_ms=NOW_MS + 2_000), offset=1))
    one.wake(NOW_MS + 1_250)
    assert isinstance(one.handler, SchedulerHandler)
    assert (late_ms, one.handler.waiting) == ([250], 1)


def test_setting_a_set_timer_changes_nothing() -> None:
    one = task()
    one.feed(set_record(timer()), set_record(timer(due_ms=NOW_MS + 5), offset=1))
    assert one.handler.next_due_ms() == NOW_MS + 1_000


def test_a_cancelled_timer_never_fires() -> None:
    one = task()
    one.feed(set_record(timer(1)), set_record(timer(2)), cancel_record(timer(1)))
    assert len(one.wake(NOW_MS + 5_000)) == 1
    assert not one.feed(cancel_record(timer(1)))
    assert not one.state


def test_a_cancel_of_another_account_touches_nothing() -> None:
    one = task()
    one.feed(set_record(timer()), cancel_record(timer(account="acc_2")))
    assert len(one.wake(NOW_MS + 5_000)) == 1


def test_a_lost_transaction_fires_again_and_a_kept_one_never() -> None:
    one = task()
    one.feed(set_record(timer()), crash=True)
    assert one.handler.next_due_ms() is None
    one.feed(set_record(timer()))
    one.wake(NOW_MS + 1_000, crash=True)
    assert len(one.wake(NOW_MS + 1_000)) == 1
    one.crash()
    assert not one.wake(NOW_MS + 1_000)


@pytest.mark.parametrize("source", ["deliveries:0:5", None])
def test_what_the_dispatcher_sets_again_after_it_fired_does_not_fire_again(source: str | None) -> None:
    one = task()
    one.feed(set_record(timer(), topic="timers", source=source))
    assert len(one.wake(NOW_MS + 1_000)) == 1
    one.crash()
    one.feed(set_record(timer(), topic="timers", source=source, offset=1, at_ms=NOW_MS + DAY_MS))
    assert not one.wake(NOW_MS + DAY_MS)


def test_nor_after_an_outage_of_weeks() -> None:
    one = task()
    one.feed(set_record(timer(), topic="timers", source="deliveries:0:5"))
    one.wake(NOW_MS + 1_000)
    later_ms = NOW_MS + 9 * DAY_MS
    one.wake(later_ms)
    assert not one.state
    one.crash()
    one.feed(set_record(timer(), topic="timers", source="deliveries:0:5", offset=1, at_ms=later_ms))
    assert not one.wake(later_ms + 5_000)


def test_a_delivery_that_ended_long_after_its_neighbours_still_gets_its_timer() -> None:
    one = task(window=lambda: SourceWindow(offsets=10))
    one.feed(set_record(timer(1), topic="timers", source="deliveries:0:1000"))
    one.feed(set_record(timer(2), topic="timers", source="deliveries:0:5", offset=1))
    assert len(one.wake(NOW_MS + 1_000)) == 2


def test_the_memory_of_gone_timers_ends() -> None:
    one = task()
    one.feed(set_record(timer(), topic="timers"))
    one.wake(NOW_MS + 1_000)
    assert one.state
    due_ms = one.handler.next_due_ms()
    assert due_ms is not None
    one.wake(due_ms)
    assert not one.state


def test_a_tick_asks_for_nothing() -> None:
    one = task()
    assert not one.feed(record("timers", 0, Tick(), key="tick"))
    assert not one.state


@pytest.mark.parametrize("topic", ["timers", "timers-tx"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="no value"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff", id="no text"),
        pytest.param(b"{}", id="no members"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(encode(timer(topic="events")), id="a topic no timer may write to"),
        pytest.param(encode(timer(due_ms=-1)), id="before time"),
        pytest.param(encode(timer(due_ms=2**62)), id="after all time"),
        pytest.param(encode(timer(due_ms=10**30)), id="a number no store holds"),
        pytest.param(encode(timer(payload_at=10_000)), id="a payload outside the record"),
        pytest.param(encode(timer()).replace(OWNER.encode(), b"other", 1), id="an owner under a foreign key"),
    ],
)
def test_garbage_is_parked_and_the_partition_goes_on(topic: str, value: bytes | None) -> None:
    one = task()
    outputs: list[Output] = one.feed(record(topic, 0, value, key=OWNER), set_record(timer(5), offset=1))
    assert [output.topic for output in outputs] == ["dead-letters-tx"]
    assert len(one.wake(NOW_MS + 5_000)) == 1
    assert timer_key(ACCOUNT, timer(5).id) not in one.state
