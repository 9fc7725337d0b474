"""Runs that a flow holds back, on one partition of the orchestrator: asked for, begun or ended once, and released."""

from functools import reduce
from typing import Any

import msgspec
import pytest

from millrace_core.messages import (
    AbsorbRun,
    AdmissionCommand,
    AdmitRun,
    AskAdmission,
    CancelAdmissions,
    CancelMatches,
    CancelRun,
    FlowPart,
    Message,
    Raw,
    RefuseRun,
    ReleaseAdmission,
    RunEnded,
    RunFact,
    SetTimer,
    Step,
    decode,
)
from millrace_core.record import CONTROL, TRACEPARENT, Output, Written, header, payload_bytes
from millrace_core.runs import decode_state, evolve, opened
from millrace_orchestrator.handlers import READ_BACK, OrchestratorHandler, run_key
from tests.support.plans import ACCOUNT, NOW_MS, job, node, run_id, start
from tests.support.records import as_record, on, record
from tests.support.run_worlds import answer
from tests.support.task import Task

PART = FlowPart(key="k", priority=5, partition=3, offset=9, at=NOW_MS)
ACCOUNTS = FlowPart(key="a", priority=50, partition=3, offset=9, at=NOW_MS)
PLAN = job(node(), timeout_s=60)


def task() -> Task:
    return Task(OrchestratorHandler, READ_BACK)


def start_record(
    *,
    flow: FlowPart | None = PART,
    account_flow: FlowPart | None = None,
    offset: int = 0,
    plan: bytes = PLAN,
    **more: Any,
) -> Written:
    message = start(plan, flow=flow, account_flow=account_flow)
    return record("run-commands", offset, message, key=message.run, source="events:0:5", **more)


def told(message: Message, *, offset: int = 0) -> Written:
    return record("run-commands-tx", offset, message, key=run_id())


def facts(outputs: list[Output]) -> list[Any]:
    return [decode(output.value, RunFact) for output in on(outputs, "run-facts")]  # type: ignore[arg-type]


def names(outputs: list[Output]) -> list[str]:
    return [type(fact).__name__ for fact in facts(outputs)]


def admissions(outputs: list[Output]) -> list[Any]:
    return [decode(output.value, AdmissionCommand) for output in on(outputs, "admissions")]  # type: ignore[arg-type]


ADMIT = AdmitRun(run=run_id(), account=ACCOUNT, subscription="sub_1")
ADMITTED_BY_ACCOUNT = AdmitRun(run=run_id(), account=ACCOUNT, subscription=ACCOUNT)


def test_a_run_with_a_flow_asks_and_does_nothing_else() -> None:
    one = task()
    outputs = one.feed(start_record(more=((CONTROL, b"77"), (TRACEPARENT, b"00-a-b-01"))))
    assert [output.topic for output in outputs] == ["admissions"]
    (asked,) = admissions(outputs)
    assert asked == AskAdmission(
        run=run_id(), account=ACCOUNT, subscription="sub_1", key="k", priority=5, partition=3, offset=9, at=NOW_MS
    )
    assert outputs[0].route == b"sub_1", "all of a subscription's have one owner"
    assert header(as_record(outputs[0], 0), CONTROL) == b"77", "who admits must know the flow at least as new"
    assert header(as_record(outputs[0], 0), TRACEPARENT) == b"00-a-b-01"
    assert one.state[run_key(ACCOUNT, run_id())]


def test_it_begins_when_it_is_admitted_once_and_its_end_is_told() -> None:
    one = task()
    one.feed(start_record())
    outputs = one.feed(told(ADMIT))
    assert names(outputs) == ["RunStarted", "StepStarted"]
    assert (facts(outputs)[0].subscription, facts(outputs)[0].event) == ("sub_1", start(PLAN).event.id)  # type: ignore[union-attr]
    (timer,) = on(outputs, "timers-tx")
    assert decode(timer.value, SetTimer).owner == run_id(), "its time limit begins with it"
    for again in (ADMIT, AbsorbRun(run=run_id(), account=ACCOUNT, into=run_id(2))):
        assert not one.feed(told(again))
    (step,) = on(outputs, "steps")
    result = answer(decode(step.value, Step), seed=1, failures=0)
    outputs = one.feed(record("step-results", 0, result, key=result.run))
    assert names(outputs)[-1] == "RunEnded"
    assert admissions(outputs) == [ReleaseAdmission(run=run_id(), account=ACCOUNT, subscription="sub_1", key="k")]
    assert not one.state


def test_an_answer_of_an_older_release_says_not_of_whom() -> None:
    one = task()
    one.feed(start_record())
    assert names(one.feed(told(AdmitRun(run=run_id(), account=ACCOUNT)))) == ["RunStarted", "StepStarted"]


def test_admitted_with_a_list_it_works_on_that() -> None:
    one = task()
    one.feed(start_record(flow=FlowPart(key="", priority=1, partition=0, offset=0, at=0, bundled=True)))
    outputs = one.feed(
        told(AdmitRun(run=run_id(), account=ACCOUNT, subscription="sub_1", bundled=True, input=Raw(b"[1, 2]")))
    )
    assert names(outputs) == ["RunBundled", "RunStarted", "StepStarted"]
    assert payload_bytes(as_record(on(outputs, "run-facts")[0], 0)) == b"[1, 2]"
    (step,) = on(outputs, "steps")
    assert bytes(decode(step.value, Step).context).startswith(b'{"input":[1, 2],')


@pytest.mark.parametrize(
    ("message", "outcome", "is_told"),
    [
        (AbsorbRun(run=run_id(), account=ACCOUNT, into=run_id(2)), "absorbed", False),
        (RefuseRun(run=run_id(), account=ACCOUNT, reason="full"), "failed", True),
        (CancelRun(run=run_id(), account=ACCOUNT), "cancelled", True),
    ],
    ids=["absorbed", "refused", "cancelled"],
)
def test_held_it_can_end_without_having_begun(message: Message, outcome: str, is_told: bool) -> None:
    one = task()
    one.feed(start_record())
    outputs = one.feed(told(message))
    (fact,) = facts(outputs)
    assert isinstance(fact, RunEnded)
    assert fact.outcome == outcome
    assert fact.into == (run_id(2) if outcome == "absorbed" else None)
    assert not on(outputs, "timers-tx")
    assert bool(admissions(outputs)) == is_told
    assert not one.state
    assert not one.feed(told(ADMIT))


@pytest.mark.parametrize("is_held_first", [True, False], ids=["loses its flow", "gains a flow"])
@pytest.mark.parametrize("has_ended", [True, False])
def test_a_start_that_is_repeated_after_its_subscription_changed_is_a_repeat(
    is_held_first: bool, has_ended: bool
) -> None:
    """The matcher died between its outputs and its commit, and control changed before it handled the event again."""
    one = task()
    first, second = (PART, None) if is_held_first else (None, PART)
    one.feed(start_record(flow=first))
    if has_ended:
        one.feed(told(CancelRun(run=run_id(), account=ACCOUNT)))
    one.crash()
    assert not one.feed(start_record(flow=second, offset=1))


def test_an_event_that_cancels_is_passed_on_once() -> None:
    one = task()
    command = CancelMatches(
        run=run_id(7), account=ACCOUNT, subscription="sub_1", event="evt_1", key="k", partition=3, offset=9, at=NOW_MS
    )
    cancelling = [record("run-commands", n, command, key=command.run, source="events:0:9") for n in range(2)]
    (passed,) = admissions(one.feed(*cancelling))
    assert passed == CancelAdmissions(
        account=ACCOUNT, subscription="sub_1", event="evt_1", key="k", partition=3, offset=9, at=NOW_MS
    )


def test_a_plan_that_cannot_be_run_ends_before_it_asks() -> None:
    outputs = task().feed(start_record(plan=b'{"id":"job_1"}'))
    assert [fact.outcome for fact in facts(outputs)] == ["failed"]
    assert not admissions(outputs)


@pytest.mark.parametrize("members", [{"key": "k" * 300}, {"priority": -1}, {"at": 2**70}])
def test_a_place_in_a_flow_that_is_none_is_parked(members: dict[str, Any]) -> None:
    outputs = task().feed(start_record(flow=msgspec.structs.replace(PART, **members)))
    assert "dead-letters-tx" in [output.topic for output in outputs]


def test_the_state_is_the_fold_of_the_facts() -> None:
    one = task()
    part = msgspec.structs.replace(PART, bundled=True)
    one.feed(start_record(flow=part))
    told_it = facts(
        one.feed(told(AdmitRun(run=run_id(), account=ACCOUNT, subscription="sub_1", bundled=True, input=Raw(b"[1]"))))
    )
    state = decode_state(one.state[run_key(ACCOUNT, run_id())])
    assert reduce(evolve, told_it, opened(start(PLAN, flow=part))) == state


ASKED_OF_ACCOUNT = AskAdmission(
    run=run_id(), account=ACCOUNT, subscription=ACCOUNT, key="a", priority=50, partition=3, offset=9, at=NOW_MS
)
RELEASED = ReleaseAdmission(run=run_id(), account=ACCOUNT, subscription="sub_1", key="k")
ACCOUNTS_RELEASED = ReleaseAdmission(run=run_id(), account=ACCOUNT, subscription=ACCOUNT, key="a")


def test_a_run_of_an_account_with_a_flow_asks_that_alone_where_its_subscription_has_none() -> None:
    one = task()
    outputs = one.feed(start_record(flow=None, account_flow=ACCOUNTS))
    assert admissions(outputs) == [ASKED_OF_ACCOUNT]
    assert outputs[0].route == ACCOUNT.encode(), "all of an account's have one owner"
    assert not one.feed(told(ADMIT)), "nobody asked its subscription's"
    outputs = one.feed(told(ADMITTED_BY_ACCOUNT))
    assert names(outputs) == ["RunStarted", "StepStarted"]
    assert facts(outputs)[0].subscription == "sub_1"
    assert admissions(one.feed(told(CancelRun(run=run_id(), account=ACCOUNT)))) == [ACCOUNTS_RELEASED]
    assert not one.state


def test_what_its_subscription_let_go_asks_its_account_and_then_begins() -> None:
    one = task()
    part = msgspec.structs.replace(PART, bundled=True)
    (asked,) = admissions(one.feed(start_record(flow=part, account_flow=ACCOUNTS)))
    assert asked.subscription == "sub_1"
    outputs = one.feed(
        told(AdmitRun(run=run_id(), account=ACCOUNT, subscription="sub_1", bundled=True, input=Raw(b"[1]")))
    )
    assert names(outputs) == ["RunBundled", "RunWaiting"]
    waiting = facts(outputs)[1]
    assert (waiting.subscription, waiting.key, waiting.reason) == (ACCOUNT, "a", "account")
    assert admissions(outputs) == [ASKED_OF_ACCOUNT]
    one.crash()
    assert not one.feed(told(ADMIT)), "that was its subscription's answer, again"
    outputs = one.feed(told(ADMITTED_BY_ACCOUNT))
    assert names(outputs) == ["RunStarted", "StepStarted"]
    (step,) = on(outputs, "steps")
    assert bytes(decode(step.value, Step).context).startswith(b'{"input":[1],')
    result = answer(decode(step.value, Step), seed=1, failures=0)
    outputs = one.feed(record("step-results", 0, result, key=result.run))
    assert admissions(outputs) == [RELEASED, ACCOUNTS_RELEASED]
    assert not one.state


@pytest.mark.parametrize(
    ("is_let_go", "message", "outcome"),
    [
        (False, CancelRun(run=run_id(), account=ACCOUNT), "cancelled"),
        (True, CancelRun(run=run_id(), account=ACCOUNT), "cancelled"),
        (True, RefuseRun(run=run_id(), account=ACCOUNT, reason="full"), "failed"),
    ],
)
def test_whoever_was_asked_hears_that_a_run_ended_without_having_begun(
    is_let_go: bool, message: Message, outcome: str
) -> None:
    one = task()
    one.feed(start_record(account_flow=ACCOUNTS))
    if is_let_go:
        one.feed(told(ADMIT))
    outputs = one.feed(told(message))
    assert [fact.outcome for fact in facts(outputs)] == [outcome]
    assert not on(outputs, "timers-tx"), "its time had not begun"
    assert admissions(outputs) == [RELEASED, ACCOUNTS_RELEASED][: 1 + is_let_go]
    assert not one.state
    assert not one.feed(told(ADMITTED_BY_ACCOUNT))


def test_a_place_in_the_flow_of_an_account_that_is_none_is_parked() -> None:
    outputs = task().feed(start_record(flow=None, account_flow=msgspec.structs.replace(ACCOUNTS, offset=-1)))
    assert "dead-letters-tx" in [output.topic for output in outputs]


def test_the_state_of_a_run_that_asks_its_account_is_the_fold_of_the_facts() -> None:
    one = task()
    one.feed(start_record(account_flow=ACCOUNTS))
    told_it = facts(one.feed(told(ADMIT)))
    state = decode_state(one.state[run_key(ACCOUNT, run_id())])
    assert reduce(evolve, told_it, opened(start(PLAN, flow=PART, account_flow=ACCOUNTS))) == state
