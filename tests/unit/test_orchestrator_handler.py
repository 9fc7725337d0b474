"""The orchestrator's handler on one partition: outputs, repeats, garbage, shares."""

from typing import Any

import msgspec
import pytest

from millrace_core.ids import DAY_MS
from millrace_core.messages import (
    CancelRun,
    RunEnded,
    RunFact,
    SetTimer,
    StartRun,
    Step,
    StepResult,
    decode,
)
from millrace_core.plans import RetryPolicy
from millrace_core.record import CONTROL, PAYLOAD, TRACEPARENT, Output, Written, header
from millrace_core.seen import SourceWindow
from millrace_orchestrator.handlers import MARK_EVERY_RECORDS, READ_BACK, OrchestratorHandler, run_key
from millrace_orchestrator.shares import Shares
from tests.support.plans import ACCOUNT, NOW_MS, chain, job, node, run_id, start
from tests.support.records import as_record, on, record
from tests.support.run_worlds import answer
from tests.support.task import Task


def task(**more: Any) -> Task:
    return Task(lambda: OrchestratorHandler(**{name: make() for name, make in more.items()}), READ_BACK)


def start_record(
    n: int = 1,
    *,
    offset: int = 0,
    plan: bytes | None = None,
    source: str | None = "events:0:5",
    topic: str = "run-commands",
    at_ms: int = NOW_MS,
    more: tuple[tuple[str, bytes], ...] = (),
    account: str = ACCOUNT,
) -> Written:
    message = start(plan or job(), n=n, account=account)
    return record(topic, offset, message, key=message.run, source=source, at_ms=at_ms, more=more)


def result_record(step: Output, *, offset: int = 0, failures: int = 0) -> Written:
    result = answer(decode(step.value, Step), seed=1, failures=failures)
    return record("step-results", offset, result, key=result.run)


def facts(outputs: list[Output]) -> list[RunFact]:
    return [decode(output.value, RunFact) for output in on(outputs, "run-facts")]  # type: ignore[arg-type]


def tags(outputs: list[Output]) -> list[str]:
    return [type(fact).__name__ for fact in facts(outputs)]


def test_a_job_from_start_to_end() -> None:
    one = task()
    outputs = one.feed(start_record())
    assert tags(outputs) == ["RunStarted", "StepStarted"]
    (step,) = on(outputs, "steps")
    assert one.state[run_key(ACCOUNT, run_id())]
    outputs = one.feed(result_record(step))
    assert tags(outputs) == ["StepCompleted", "RunEnded"]
    assert not one.state


def test_every_output_says_whose_it_is_and_what_caused_it() -> None:
    stamps = ((CONTROL, b"77"), (TRACEPARENT, b"00-a-b-01"))
    outputs = task().feed(start_record(offset=9, plan=job(timeout_s=60), more=stamps))
    assert {output.topic for output in outputs} == {"run-facts", "steps", "timers-tx"}
    for output in outputs:
        read = as_record(output, 0)
        assert output.key == run_id().encode()
        assert header(read, "account") == b"acc_1"
        assert header(read, "source") == b"run-commands:0:9"
        assert (header(read, CONTROL), header(read, TRACEPARENT)) == (b"77", b"00-a-b-01")
        is_timer = output.topic == "timers-tx"
        assert header(read, "id") == (decode(output.value, SetTimer).id if is_timer else run_id()).encode()


def test_header_p_is_where_a_payload_begins() -> None:
    one = task()
    (step,) = on(one.feed(start_record()), "steps")
    assert step.value is not None
    at = int(header(as_record(step, 0), PAYLOAD) or b"")
    assert step.value[at:-1] == bytes(decode(step.value, Step).context)
    ended = on(one.feed(result_record(step)), "run-facts")[-1]
    assert ended.value is not None
    at = int(header(as_record(ended, 0), PAYLOAD) or b"")
    assert ended.value[at:-1] == bytes(decode(ended.value, RunEnded).output)


def test_topics_are_known_by_their_full_names_too() -> None:
    outputs = task().feed(start_record(topic="millrace.a1b2.run-commands.v1"))
    assert tags(outputs) == ["RunStarted", "StepStarted"]


def test_a_repeat_is_dropped_while_the_run_lives_and_after_it_ended() -> None:
    one = task()
    (step,) = on(one.feed(start_record(offset=0)), "steps")
    assert not one.feed(start_record(offset=1))
    one.feed(result_record(step))
    assert not one.feed(start_record(offset=2))
    one.crash()
    assert not one.feed(start_record(offset=3))


def test_the_record_whose_transaction_was_lost_is_handled_again() -> None:
    one = task()
    assert not one.feed(start_record(offset=0), crash=True)
    assert not one.state
    assert tags(one.feed(start_record(offset=0))) == ["RunStarted", "StepStarted"]


def test_what_comes_below_the_window_is_stale_unless_it_lives() -> None:
    one = task(window=lambda: SourceWindow(offsets=10))
    (living,) = on(one.feed(start_record(1, offset=0, source="events:0:5")), "steps")
    one.feed(start_record(2, offset=1, source="events:0:100"))
    assert not one.feed(start_record(1, offset=2, source="events:0:5"))
    one.feed(result_record(living))
    outputs = one.feed(start_record(1, offset=3, source="events:0:5"))
    (fact,) = facts(outputs)
    assert isinstance(fact, RunEnded)
    assert fact.outcome == "stale"
    assert not on(outputs, "steps")
    assert not any(key.startswith(b"run/") and run_id(1).encode() in key for key in one.state)


def test_a_source_that_lies_further_back_than_is_read_back_begins_no_run_again() -> None:
    """Its matcher stood still, uncommitted, while those of other partitions went on."""
    one = task()
    (step,) = on(one.feed(start_record(1, offset=0, source="events:1:7")), "steps")
    one.feed(result_record(step))
    for n, offset in ((2, MARK_EVERY_RECORDS), (3, MARK_EVERY_RECORDS * 2)):
        one.feed(start_record(n, offset=offset, source=f"events:0:{offset}"))
    one.log = one.log[-1:]
    one.crash()
    (fact,) = facts(one.feed(start_record(1, offset=MARK_EVERY_RECORDS * 9, source="events:1:7")))
    assert isinstance(fact, RunEnded)
    assert fact.outcome == "stale"
    assert tags(one.feed(start_record(4, offset=MARK_EVERY_RECORDS * 9 + 1, source="events:1:8")))[0] == "RunStarted"


@pytest.mark.parametrize("topic", ["run-commands", "run-commands-tx"])
def test_a_start_without_an_event_is_known_by_its_id_for_a_day(topic: str) -> None:
    one = task()
    source = None if topic == "run-commands" else "timers:0:1"
    (step,) = on(one.feed(start_record(offset=0, source=source, topic=topic)), "steps")
    one.feed(result_record(step))
    one.crash()
    for after_ms in (1, DAY_MS - 1, DAY_MS):
        again = start_record(offset=1, source=source, topic=topic, at_ms=NOW_MS + after_ms)
        assert not one.feed(again)
    due_ms = one.handler.next_due_ms()
    assert due_ms is not None
    assert NOW_MS + DAY_MS < due_ms <= NOW_MS + 2 * DAY_MS
    assert not one.wake(due_ms)
    assert not one.state
    assert one.handler.next_due_ms() is None


def test_two_accounts_with_one_run_id_do_not_meet() -> None:
    one = task()
    one.feed(start_record(offset=0, source=None))
    assert tags(one.feed(start_record(offset=1, source=None, account="acc_2"))) == ["RunStarted", "StepStarted"]
    message = CancelRun(run=run_id(), account="acc_2")
    assert len(facts(one.feed(record("run-commands", 2, message, key=message.run)))) == 1
    assert run_key(ACCOUNT, run_id()) in one.state


def test_a_retry_waits_as_a_timer() -> None:
    one = task()
    plan = job(node(retry=RetryPolicy(attempts=20)))
    (step,) = on(one.feed(start_record(plan=plan)), "steps")
    outputs = one.feed(result_record(step, failures=10))
    (output,) = on(outputs, "timers-tx")
    timer = decode(output.value, SetTimer)
    assert isinstance(timer, SetTimer)
    fired = record("run-commands-tx", 0, bytes(timer.record), key=timer.key)
    (again,) = on(one.feed(fired), "steps")
    assert decode(again.value, Step).attempt == 2


GARBAGE = [
    pytest.param(None, id="no value"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="no text"),
    pytest.param(b"{}", id="no members"),
    pytest.param(b"[" * 100_000, id="deep"),
    pytest.param(b'{"command":"start","run":"x","account":"a","plan":{}}', id="no run id"),
    pytest.param(b'{"command":"cancel","run":"%b","account":"\\ud800"}' % run_id().encode(), id="half a character"),
    pytest.param(
        b'{"command":"start","run":"%b","account":"a","plan":{},"input":"\xff"}' % run_id().encode(), id="bad input"
    ),
    pytest.param(
        b'{"run":"%b","account":"a","node":"a","attempt":1,"started_at":1,"duration_ms":1e999}' % run_id().encode(),
        id="endless",
    ),
    pytest.param(
        b'{"run":"%b","account":"a","node":"a","attempt":1,"started_at":1,"duration_ms":1,"output":"\xff"}'
        % run_id().encode(),
        id="bad output",
    ),
]


@pytest.mark.parametrize("topic", ["run-commands", "run-commands-tx", "step-results"])
@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_is_parked_and_the_partition_goes_on(topic: str, value: bytes | None) -> None:
    one = task()
    outputs = one.feed(record(topic, 0, value, key=run_id()), start_record(offset=1))
    assert outputs[0].topic == "dead-letters-tx"
    assert tags(outputs) == ["RunStarted", "StepStarted"]


def test_a_record_under_a_foreign_key_is_parked() -> None:
    message = start(job())
    outputs = task().feed(record("run-commands", 0, message, key="another"))
    assert [output.topic for output in outputs] == ["dead-letters-tx"]


def test_a_start_that_cannot_be_read_is_the_end_of_the_run_its_headers_name() -> None:
    one = task()
    outputs = one.feed(record("run-commands", 0, b'{"command":"start"}', key=run_id(), source="events:0:5"))
    assert [output.topic for output in outputs] == ["dead-letters-tx", "run-facts"]
    (fact,) = facts(outputs)
    assert isinstance(fact, RunEnded)
    assert (fact.run, fact.account, fact.outcome) == (run_id(), ACCOUNT, "dead_lettered")


def test_but_not_of_a_run_that_lives_or_that_was_had_before() -> None:
    one = task()
    (step,) = on(one.feed(start_record(offset=0)), "steps")
    spoiled = record("run-commands", 1, b'{"command":"start"}', key=run_id(), source="events:0:5")
    assert [output.topic for output in one.feed(spoiled)] == ["dead-letters-tx"]
    one.feed(result_record(step))
    assert [output.topic for output in one.feed(spoiled)] == ["dead-letters-tx"]


def test_names_without_bound_are_parked() -> None:
    long = "x" * 300
    for message in (
        msgspec.structs.replace(start(job()), account=long),
        msgspec.structs.replace(start(job()), subscription=long),
        msgspec.structs.replace(start(job()), run=f"{long}_{'0' * 32}"),
    ):
        outputs = task().feed(record("run-commands", 0, message, key=message.run))
        assert [output.topic for output in outputs] == ["dead-letters-tx"]


def test_a_header_without_bound_is_not_passed_on() -> None:
    outputs = task().feed(start_record(more=((TRACEPARENT, b"x" * 2_000),)))
    assert all(header(as_record(output, 0), TRACEPARENT) is None for output in outputs)


def test_huge_numbers_take_nothing_down() -> None:
    one = task()
    one.feed(start_record())
    for member in ("attempt", "started_at", "duration_ms"):
        more = {"attempt": 1, "started_at": 1, "duration_ms": 1, member: 10**30}
        value = b",".join(b'"%b":%d' % (name.encode(), number) for name, number in more.items())
        value = b'{"run":"%b","account":"acc_1","node":"call",%b}' % (run_id().encode(), value)
        one.feed(record("step-results", 0, value, key=run_id()))


def test_an_account_has_its_share_of_steps_and_no_more() -> None:
    one = task(shares=lambda: Shares(released_max=2))
    steps = [step for n in range(5) for step in on(one.feed(start_record(n, offset=n)), "steps")]
    assert len(steps) == 2
    assert len(on(one.feed(start_record(9, offset=9, account="acc_2")), "steps")) == 1
    one.crash()
    for n in range(3):
        outputs = one.feed(result_record(steps[n]))
        (freed,) = on(outputs, "steps")
        assert freed.key == header(as_record(freed, 0), "id") != steps[n].key
        steps.append(freed)
    assert len({step.key for step in steps}) == 5
    assert not on(one.feed(result_record(steps[3]), result_record(steps[4])), "steps")
    assert not any(key.startswith(b"held/") for key in one.state)


def test_a_held_step_goes_with_its_cancelled_run() -> None:
    one = task(shares=lambda: Shares(released_max=1))
    (step,) = on(one.feed(*(start_record(n, offset=n) for n in range(3))), "steps")
    held = next(n for n in range(3) if run_id(n).encode() != step.key)
    message = CancelRun(run=run_id(held), account=ACCOUNT)
    assert tags(one.feed(record("run-commands", 5, message, key=message.run))) == ["RunEnded"]
    (last,) = on(one.feed(result_record(step)), "steps")
    assert last.key not in (step.key, run_id(held).encode())
    one.feed(result_record(last))
    assert not one.state


def test_a_share_comes_back_when_a_running_run_is_cancelled() -> None:
    one = task(shares=lambda: Shares(released_max=1))
    (step,) = on(one.feed(*(start_record(n, offset=n) for n in range(2))), "steps")
    assert step.key is not None
    message = CancelRun(run=step.key.decode(), account=ACCOUNT)
    outputs = one.feed(record("run-commands", 5, message, key=message.run))
    assert tags(outputs) == ["RunEnded"]
    assert len(on(outputs, "steps")) == 1


def test_a_chain_lets_its_share_go_to_its_own_next_step() -> None:
    one = task(shares=lambda: Shares(released_max=1))
    (step,) = on(one.feed(start_record(plan=chain(node("a"), node("b")))), "steps")
    (step,) = on(one.feed(result_record(step)), "steps")
    assert decode(step.value, Step).node == "b"
    assert tags(one.feed(result_record(step))) == ["StepCompleted", "RunEnded"]


def test_what_lives_is_held_and_has_ended_is_counted() -> None:
    told: list[str] = []
    one = Task(lambda: OrchestratorHandler(shares=Shares(released_max=1), ended=told.append), READ_BACK)

    def counted() -> tuple[int, int]:
        handler = one.handler
        assert isinstance(handler, OrchestratorHandler)
        return handler.live_runs, handler.held_steps

    (step,) = on(one.feed(*(start_record(n, offset=n, source=f"events:0:{n}") for n in range(1, 4))), "steps")
    assert counted() == (3, 2)
    one.crash()
    assert counted() == (3, 2), "and again in the next life"
    one.feed(result_record(step))
    assert (counted(), told) == ((2, 1), ["completed"])
    one.feed(start_record(1, offset=9, source="events:0:1"))
    assert (counted(), told) == ((2, 1), ["completed"]), "a repeat is nothing new"


def test_types_of_commands_are_what_the_log_carries() -> None:
    # A guard for this file: its records go through the real encoders.
    assert isinstance(decode(start_record().value, StartRun), StartRun)
    (step,) = on(task().feed(start_record()), "steps")
    assert isinstance(decode(result_record(step).value, StepResult), StepResult)
