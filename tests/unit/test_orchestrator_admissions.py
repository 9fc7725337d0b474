"""Flow control, case by case: who begins, who waits and for what, who is absorbed, refused or cancelled."""

from typing import Any

import pytest

from millrace_core import limits
from millrace_core.messages import (
    AbsorbRun,
    AskAdmission,
    Batch,
    CancelRun,
    Concurrency,
    Debounce,
    FlowControl,
    RefuseRun,
    RunWaiting,
    Throttle,
)
from millrace_orchestrator.admissions import HeldBack
from tests.support.admitting import Door
from tests.support.plans import ACCOUNT
from tests.support.records import on, record

ONE = FlowControl(concurrency=Concurrency(ceiling=1))


def test_without_a_bound_everyone_begins_at_once_and_nothing_is_kept() -> None:
    door = Door(FlowControl())
    runs = [door.ask() for _ in range(3)]
    assert door.begun() == runs
    assert not door.of(RunWaiting)
    for run in runs:
        door.end(run)
    assert not door.task.state


def test_a_ceiling_holds_for_each_key_and_says_so() -> None:
    door = Door(ONE)
    first, second, other = door.ask("a"), door.ask("a"), door.ask("b")
    assert door.begun() == [first, other]
    assert door.waits(second) == ("concurrency", None)
    door.end(first)
    assert door.begun() == [first, other, second]


def test_a_total_holds_for_all_keys() -> None:
    door = Door(FlowControl(concurrency=Concurrency(total=2)))
    runs = [door.ask(key) for key in "abc"]
    assert door.begun() == runs[:2]
    door.end(runs[0])
    assert door.begun() == runs


def test_a_key_below_its_floor_goes_before_older_ones() -> None:
    door = Door(FlowControl(concurrency=Concurrency(floor=1, total=2)))
    busy = [door.ask("a") for _ in range(4)]
    late = door.ask("b")
    assert door.begun() == busy[:2]
    door.end(busy[0])
    assert door.begun() == [*busy[:2], late]


def test_the_more_urgent_goes_first_then_the_older() -> None:
    door = Door(ONE)
    first = door.ask()
    later, urgent, last = door.ask(priority=100), door.ask(priority=1), door.ask(priority=100)
    for run in (first, urgent, later):
        door.end(run)
    assert door.begun() == [first, urgent, later, last]


def test_a_throttle_lets_no_more_begin_in_a_period() -> None:
    door = Door(FlowControl(throttle=Throttle(limit=2, period_s=10)))
    runs = [door.ask() for _ in range(5)]
    assert door.begun() == runs[:2]
    began_at = door.now_ms
    assert door.waits(runs[2]) == ("throttle", began_at + 10_000)
    door.wait(9_999)
    assert door.begun() == runs[:2]
    door.wait(1)
    assert door.begun() == runs[:4]
    door.wait(10_000)
    assert door.begun() == runs


@pytest.mark.parametrize(("mode", "expected"), [("latest", 2), ("first", 0)])
def test_a_debounce_makes_one_run_of_a_burst(mode: Any, expected: int) -> None:
    door = Door(FlowControl(debounce=Debounce(mode=mode, quiet_s=1, longest_s=10)))
    runs = []
    for _ in range(3):
        runs.append(door.ask())
        door.wait(500)
    assert not door.begun()
    assert door.waits(runs[expected])[0] == "debounce"
    door.wait(500)
    assert door.begun() == [runs[expected]]
    assert {message.run for message in door.of(AbsorbRun)} == set(runs) - {runs[expected]}


def test_a_debounce_waits_no_longer_than_its_longest() -> None:
    door = Door(FlowControl(debounce=Debounce(quiet_s=1, longest_s=3)))
    began_at = door.now_ms
    while not door.begun():
        door.ask()
        door.wait(400)
    assert [at for at, message in door.told if message.run == door.begun()[0]][-1] == began_at + 3_000


def test_a_debounce_of_all_gives_the_list() -> None:
    door = Door(FlowControl(debounce=Debounce(mode="all", quiet_s=1, longest_s=10)))
    runs = [door.ask() for _ in range(3)]
    door.wait(1_000)
    assert door.begun() == runs[:1]
    assert door.inputs(runs[0]) == [0, 1, 2]
    door.end(runs[0])
    assert not door.task.state


def test_a_batch_begins_when_it_is_full_or_has_waited() -> None:
    door = Door(FlowControl(batch=Batch(size=3, wait_s=5)))
    runs = [door.ask() for _ in range(4)]
    assert door.begun() == runs[:1]
    assert door.inputs(runs[0]) == [0, 1, 2]
    assert door.waits(runs[3]) == ("batch", door.now_ms + 5_000)
    door.wait(5_000)
    assert door.inputs(runs[3]) == [3]


def test_a_batch_whose_inputs_grow_too_large_begins_before_it_is_full() -> None:
    door = Door(FlowControl(batch=Batch(size=10, wait_s=5)))
    large = b'"%b"' % (b"x" * (limits.FLOW_BATCH_BYTES_MAX // 2))
    runs = [door.ask(input=large) for _ in range(3)]
    assert door.begun() == runs[:2]
    assert len(door.inputs(runs[0])) == 1


def test_drain_lets_nothing_begin_until_it_is_lifted() -> None:
    door = Door(FlowControl(drain=True))
    run = door.ask()
    assert not door.begun()
    assert door.waits(run) == ("drain", None)
    door.change(FlowControl())
    door.turn()
    assert door.begun() == [run]


def test_a_change_alone_takes_effect_and_is_told() -> None:
    door = Door(ONE)
    first, second, third = (door.ask() for _ in range(3))
    door.change(FlowControl(concurrency=Concurrency(ceiling=2)))
    assert door.task.handler.next_due_ms() == 0
    door.turn()
    assert door.begun() == [first, second]
    door.change(FlowControl(drain=True))
    door.turn()
    assert door.waits(third) == ("drain", None)


def test_what_gathers_is_let_go_when_its_flow_gathers_no_more() -> None:
    door = Door(FlowControl(debounce=Debounce(quiet_s=60, longest_s=60)))
    run = door.ask()
    door.change(FlowControl())
    door.turn()
    assert door.begun() == [run]


def test_under_a_deleted_subscription_what_waits_goes_on_by_its_last_flow_undrained() -> None:
    door = Door(FlowControl(concurrency=Concurrency(ceiling=1), drain=True))
    runs = [door.ask() for _ in range(2)]
    door.change(None)
    door.task.crash()
    door.turn()
    assert door.begun() == runs[:1]
    door.end(runs[0])
    assert door.begun() == runs


def test_a_queue_has_a_bound_and_says_so() -> None:
    door = Door(FlowControl(drain=True), waiting_max=2)
    runs = [door.ask() for _ in range(3)]
    (refused,) = door.of(RefuseRun)
    assert refused.run == runs[2]
    assert "2 runs of sub_1 wait already" in refused.reason


def test_so_have_keys() -> None:
    door = Door(ONE, keys_max=1)
    kept, refused = door.ask("a"), door.ask("b")
    assert door.begun() == [kept]
    assert [message.run for message in door.of(RefuseRun)] == [refused]


def test_an_event_cancels_what_came_before_it_waiting_or_at_work() -> None:
    door = Door(ONE)
    working, waiting, other = door.ask("a"), door.ask("a"), door.ask("b")
    door.cancel("a")
    assert {message.run for message in door.of(CancelRun)} == {working, waiting}
    assert "evt_1" in door.of(CancelRun)[0].reason
    after = door.ask("a")
    door.end(working)
    assert door.begun() == [working, other, after]


def test_what_came_before_and_arrives_after_is_cancelled_too() -> None:
    door = Door(FlowControl())
    door.cancel("a", offset=1)
    before, after = door.ask("a"), door.ask("a")
    assert [message.run for message in door.of(CancelRun)] == [before]
    assert door.begun() == [after]
    door.end(after)
    door.wait(limits.FLOW_CANCEL_KEPT_MS)
    assert not door.task.state


def test_a_run_that_is_cancelled_while_it_waits_leaves_its_place() -> None:
    door = Door(ONE)
    first, second, third = (door.ask() for _ in range(3))
    door.live[second] = ""
    door.end(second)
    door.end(first)
    assert door.begun() == [first, third]


def test_whoever_waits_long_is_told_of_once_a_day() -> None:
    door = Door(FlowControl(drain=True))
    run = door.ask()
    door.wait(3 * limits.FLOW_TOLD_EVERY_MS)
    assert [message.run for message in door.of(RunWaiting)] == [run] * 4


def test_a_life_begins_where_the_last_one_ended() -> None:
    door = Door(FlowControl(throttle=Throttle(limit=1, period_s=10), concurrency=Concurrency(ceiling=1)))
    first, second = door.ask(), door.ask()
    door.task.crash()
    door.turn()
    assert door.begun() == [first]
    door.end(first)
    door.task.crash()
    door.turn()
    assert door.waits(second)[0] == "throttle"
    door.wait(10_000)
    assert door.begun() == [first, second]


def test_garbage_is_parked() -> None:
    door = Door(ONE)
    whole = AskAdmission(
        run="exec_" + "0" * 32, account="a/b", subscription="s", key="", priority=1, partition=0, offset=0, at=0
    )
    for value in (None, b"{}", b"\xff", whole):
        (letter,) = door.task.turn(record("admissions", 0, value, key="s"), now_ms=door.now_ms)
        assert letter.topic == "dead-letters-tx"


@pytest.mark.parametrize("mode", ["latest", "first", "all"])
def test_a_burst_is_one_by_its_events_whatever_order_their_runs_ask_in(mode: Any) -> None:
    door = Door(FlowControl(debounce=Debounce(mode=mode, quiet_s=1, longest_s=10)))
    runs = [door.ask(offset=offset) for offset in (2, 1, 3)]
    door.wait(1_000)
    (begun,) = door.begun()
    if mode == "all":
        assert door.inputs(begun) == [1, 0, 2]
    else:
        assert begun == runs[2 if mode == "latest" else 1]


def test_a_change_that_lets_many_go_does_so_in_bounded_turns() -> None:
    door = Door(FlowControl(debounce=Debounce(quiet_s=60, longest_s=60)))
    runs = {door.ask(f"k{n}") for n in range(50)}
    door.change(FlowControl())
    begun: set[str] = set()
    while door.task.handler.next_due_ms() == 0:
        outputs = door.task.turn(now_ms=door.now_ms, limit=10)
        assert len(outputs) <= 20
        begun |= {(output.key or b"").decode() for output in on(outputs, "run-commands-tx")}
    assert begun == runs


def test_large_lists_begin_a_few_in_each_turn() -> None:
    door = Door(FlowControl(batch=Batch(size=2, wait_s=5), drain=True))
    half = b'"%b"' % (b"x" * (limits.FLOW_BATCH_BYTES_MAX // 2 - 100))
    for n in range(24):
        door.ask(f"k{n // 2}", input=half)
    door.change(FlowControl())
    sizes = []
    while door.task.handler.next_due_ms() == 0:
        outputs = door.task.turn(now_ms=door.now_ms)
        sizes.append(sum(len(output.value or b"") for output in on(outputs, "run-commands-tx")))
    assert max(sizes) < limits.FLOW_TURN_BYTES_MAX + 2 * limits.FLOW_BATCH_BYTES_MAX
    assert sum(sizes) > 12 * limits.FLOW_BATCH_BYTES_MAX * 0.99


def test_a_long_queue_keeps_no_other_waiting_for_more_than_a_turn() -> None:
    door = Door(FlowControl(drain=True))
    door.change(FlowControl(drain=True), "sub_2")
    for _ in range(30):
        door.ask()
    other = door.ask(subscription="sub_2")
    door.change(FlowControl())
    door.change(FlowControl(), "sub_2")
    begun = [on(door.task.turn(now_ms=door.now_ms, limit=5), "run-commands-tx") for _ in range(2)]
    assert len(begun[0]) == 5
    assert other.encode() in [output.key for output in begun[1]]


def test_what_is_held_is_counted_by_what_it_waits_for_and_since_when() -> None:
    door = Door(FlowControl(concurrency=Concurrency(ceiling=1)))
    began_at = door.now_ms
    door.ask("a")
    door.wait(10)
    late = door.ask("a", priority=500)
    door.wait(10)
    urgent = [door.ask("a", priority=1) for _ in range(2)]
    assert door.held() == {"concurrency": HeldBack(3, began_at + 10)}, "the oldest, not who goes next"
    door.cancel("a", offset=2)
    assert door.of(CancelRun)[-1].run == late
    assert door.held() == {"concurrency": HeldBack(2, began_at + 20)}, "who has left is not counted"
    for run in list(door.live):
        door.end(run)
    assert door.begun()[-1] == urgent[0]
    door.change(FlowControl(drain=True))
    door.turn()
    assert door.held() == {"drain": HeldBack(1, began_at + 20)}
    door.change(FlowControl())
    door.turn()
    assert door.held() == {}


def test_what_gathers_is_one_that_waits_since_it_was_opened() -> None:
    door = Door(FlowControl(debounce=Debounce(quiet_s=1.0, longest_s=60.0)))
    opened_at = door.now_ms
    door.ask("a")
    door.wait(500)
    door.ask("a")
    door.ask("b")
    assert door.held() == {"debounce": HeldBack(2, opened_at)}
    door.change(FlowControl(throttle=Throttle(limit=1, period_s=60.0)))
    door.turn()
    door.ask("b")
    assert door.held() == {"throttle": HeldBack(1, door.now_ms)}


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (FlowControl(concurrency=Concurrency(total=1)), "account_concurrency"),
        (FlowControl(throttle=Throttle(limit=1, period_s=60)), "account_throttle"),
        (FlowControl(drain=True), "account_drain"),
    ],
)
def test_the_flow_of_an_account_is_kept_under_its_id_and_says_that_it_is_the_accounts(
    flow: FlowControl, reason: str
) -> None:
    door = Door()
    door.change(flow, ACCOUNT)
    runs = [door.ask(subscription=ACCOUNT) for _ in range(2)]
    assert door.begun() == ([] if flow.drain else runs[:1])
    assert door.waits(runs[1])[0] == reason
    assert (door.waits(runs[1])[1] is not None) == (reason == "account_throttle")
    assert set(door.held()) == {reason}
    assert door.ask() in door.begun(), "a subscription's own flow is another"
    door.task.crash()
    door.change(FlowControl(), ACCOUNT)
    door.turn()
    assert set(runs) < set(door.begun())
