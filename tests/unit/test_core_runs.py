"""The run decider, case by case. What holds for every order of inputs is in tests/property/test_runs_decider.py."""

from typing import Any

import msgspec
import pytest

from millrace_core import limits
from millrace_core.messages import (
    CancelRun,
    CancelTimer,
    ErrorInfo,
    Raw,
    RunEnded,
    RunStarted,
    SetTimer,
    StepCompleted,
    StepFailed,
    StepResult,
    StepSkipped,
    StepStarted,
    TimerFired,
    decode,
)
from millrace_core.plans import RetryPolicy
from millrace_core.retries import delay_ms
from millrace_core.runs import Decision, RunState, decide, decode_state, encode_state, step_of
from tests.support.plans import ACCOUNT, NOW_MS, chain, condition, graph, job, node, run_id, start

RUN = run_id()


def ok(node: str = "call", attempt: int = 1, output: bytes = b'{"ok":true}') -> StepResult:
    return StepResult(
        run=RUN, account=ACCOUNT, node=node, attempt=attempt, started_at=NOW_MS, duration_ms=1.5, output=Raw(output)
    )


def failed(node: str = "call", attempt: int = 1, *, retryable: bool = True, code: str = "http_500") -> StepResult:
    error = ErrorInfo(code, "the other side is ill", retryable)
    return StepResult(
        run=RUN, account=ACCOUNT, node=node, attempt=attempt, started_at=NOW_MS, duration_ms=1.5, error=error
    )


def retry_due(node: str = "call", attempt: int = 1) -> TimerFired:
    return TimerFired(run=RUN, account=ACCOUNT, purpose="retry", node=node, n=attempt)


RUN_TIMEOUT = TimerFired(run=RUN, account=ACCOUNT, purpose="timeout")
CANCEL = CancelRun(run=RUN, account=ACCOUNT, reason="not wanted")


def after(plan: bytes, *commands: Any, input: bytes = b'{"a": 1e2}') -> Decision:
    """The last decision of a start and these commands; the state goes through its bytes each time."""
    decision = decide(None, start(plan, input=input), NOW_MS)
    for n, command in enumerate(commands):
        assert decision.state is not None
        decision = decide(decode_state(encode_state(decision.state)), command, NOW_MS + n + 1)
    return decision


def kinds(decision: Decision) -> list[type]:
    return [type(fact) for fact in decision.facts]


def ended(decision: Decision) -> RunEnded:
    fact = decision.facts[-1]
    assert isinstance(fact, RunEnded)
    assert decision.state is not None
    assert decision.state.ended
    return fact


def context(decision: Decision, at: int = 0) -> Any:
    return msgspec.json.decode(decision.steps[at].context)


def test_a_start_begins_the_entry() -> None:
    decision = after(job())
    assert kinds(decision) == [RunStarted, StepStarted]
    step = decision.steps[0]
    assert (step.run, step.account, step.node, step.attempt, step.type) == (RUN, ACCOUNT, "call", 1, "http")
    assert bytes(step.config) == b'{"url":"http://127.0.0.1/hook"}'
    assert not decision.timers


def test_a_step_is_given_the_input_byte_for_byte() -> None:
    assert b'"input":{"a": 1e2},' in bytes(after(job()).steps[0].context)


def test_a_steps_context_names_event_steps_and_previous() -> None:
    given = context(after(job()))
    assert given["event"]["identifier"] == "e:github/push"
    assert (given["steps"], given["previous"]) == ({}, None)


def test_a_result_completes_a_job() -> None:
    decision = after(job(), ok(output=b'{"n": 1.10}'))
    assert kinds(decision) == [StepCompleted, RunEnded]
    assert ended(decision).outcome == "completed"
    assert bytes(ended(decision).output) == b'{"n": 1.10}'


def test_a_chain_passes_data_along() -> None:
    plan = chain(node("a"), node("b"), node("c"))
    decision = after(plan, ok("a", output=b"1"), ok("b", output=b'"two"'))
    assert context(decision)["steps"] == {"a": 1, "b": "two"}
    assert context(decision)["previous"] == "two"
    assert bytes(ended(after(plan, ok("a"), ok("b"), ok("c", output=b"[3]"))).output) == b"[3]"


DIAMOND = graph([node(id) for id in "abcd"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])


def test_a_join_waits_for_all_that_come_before_it() -> None:
    decision = after(DIAMOND, ok("a"))
    assert [step.node for step in decision.steps] == ["b", "c"]
    assert not after(DIAMOND, ok("a"), ok("c")).steps
    decision = after(DIAMOND, ok("a"), ok("c", output=b"3"), ok("b", output=b"2"))
    assert [step.node for step in decision.steps] == ["d"]
    assert context(decision)["previous"] == {"b": 2, "c": 3}


def test_a_step_is_not_given_what_ran_beside_it() -> None:
    plan = graph([node(id) for id in "abc"], [("a", "b")])
    given = context(after(plan, ok("c"), ok("a")))
    assert set(given["steps"]) == {"a"}


def test_several_last_steps_give_their_outputs_by_name() -> None:
    plan = graph([node("a"), node("b")], [])
    assert msgspec.json.decode(ended(after(plan, ok("b", output=b"2"), ok("a", output=b"1"))).output) == {
        "a": 1,
        "b": 2,
    }


def test_a_failure_is_tried_again_when_its_timer_fires() -> None:
    policy = RetryPolicy(attempts=2, initial_s=10, max_s=60)
    decision = after(job(node(retry=policy)), failed())
    (fact,), (timer,) = decision.facts, decision.timers
    assert isinstance(fact, StepFailed)
    assert isinstance(timer, SetTimer)
    assert fact.retry_at == timer.due
    assert abs(timer.due - NOW_MS - 10_000) <= 1_001
    assert (timer.topic, timer.key, timer.owner) == ("run-commands-tx", RUN, RUN)
    fired = decode(bytes(timer.record), TimerFired)
    again = after(job(node(retry=policy)), failed(), fired)
    assert [(step.node, step.attempt) for step in again.steps] == [("call", 2)]
    assert again.steps[0].key != after(job(node(retry=policy))).steps[0].key


def test_the_last_attempt_ends_the_run() -> None:
    plan = job(node(retry=RetryPolicy(attempts=2)))
    decision = after(plan, failed(), retry_due(), failed(attempt=2, code="http_503"))
    assert kinds(decision) == [StepFailed, RunEnded]
    assert not decision.timers
    end = ended(decision)
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.code == "http_503"


def test_what_cannot_succeed_is_not_tried_again() -> None:
    assert ended(after(job(node(retry=RetryPolicy(attempts=5))), failed(retryable=False))).outcome == "failed"


def test_continue_goes_on_with_the_error_as_output() -> None:
    plan = chain(node("a", on_error="continue"), node("b"))
    decision = after(plan, failed("a"))
    assert kinds(decision) == [StepFailed, StepStarted]
    assert context(decision)["previous"] == {"error": {"code": "http_500", "message": "the other side is ill"}}
    assert ended(after(plan, failed("a"), ok("b"))).outcome == "completed"


def test_a_run_whose_last_step_may_fail_completes() -> None:
    end = ended(after(job(node(on_error="continue")), failed()))
    assert (end.outcome, msgspec.json.decode(end.output)["error"]["code"]) == ("completed", "http_500")


def test_one_failed_branch_ends_the_run_and_leaves_the_others_unheard() -> None:
    plan = graph([node("a"), node("b")], [])
    decision = after(plan, failed("a"))
    assert ended(decision).outcome == "failed"
    assert not after(plan, failed("a"), ok("b")).facts


def test_cancelling_ends_a_run_and_its_timers() -> None:
    plan = job(node(retry=RetryPolicy(attempts=2)), timeout_s=60)
    waiting, begun = after(plan, failed()), after(plan)
    decision = after(plan, failed(), CANCEL)
    end = ended(decision)
    assert (end.outcome, end.error and end.error.message) == ("cancelled", "not wanted")
    set_timers = {timer.id for timer in (*begun.timers, *waiting.timers)}
    assert {timer.id for timer in decision.timers if isinstance(timer, CancelTimer)} == set_timers
    assert len(set_timers) == 2


def test_a_run_that_takes_too_long_times_out() -> None:
    plan = job(timeout_s=60)
    (timer,) = after(plan).timers
    assert isinstance(timer, SetTimer)
    assert timer.due == NOW_MS + 60_000
    decision = after(plan, decode(bytes(timer.record), TimerFired))
    assert ended(decision).outcome == "timed_out"
    assert not decision.timers


def test_ending_in_time_cancels_the_runs_timer() -> None:
    plan = job(timeout_s=60)
    assert [type(timer) for timer in after(plan, ok()).timers] == [CancelTimer]


def test_an_attempt_that_timed_out_is_tried_again() -> None:
    plan = job(node(retry=RetryPolicy(attempts=2)))
    timer = TimerFired(run=RUN, account=ACCOUNT, purpose="timeout", node="call", n=1)
    (fact,) = after(plan, timer).facts
    assert isinstance(fact, StepFailed)
    assert (fact.error.code, fact.retry_at is not None) == ("timeout", True)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(ok(), id="a second result"),
        pytest.param(failed(), id="a contradicting result"),
        pytest.param(ok(attempt=2), id="a result of an attempt that never was"),
        pytest.param(ok("other"), id="a result of another node"),
        pytest.param(retry_due(), id="a retry timer"),
        pytest.param(RUN_TIMEOUT, id="a timer this plan has not set"),
        pytest.param(start(job()), id="a second start"),
    ],
)
def test_ignores(late: Any) -> None:
    plan = chain(node("call", retry=RetryPolicy(attempts=3)), node("next"))
    before = after(plan, ok())
    decision = after(plan, ok(), late)
    assert (decision.facts, decision.steps, decision.timers) == ([], [], [])
    assert decision.state == before.state


def test_a_late_result_of_an_earlier_attempt_is_ignored() -> None:
    plan = job(node(retry=RetryPolicy(attempts=3)))
    assert not after(plan, failed(), ok()).facts
    assert not after(plan, failed(), retry_due(), ok(attempt=1)).facts
    assert not after(plan, failed(), retry_due(), retry_due()).facts
    assert not after(plan, failed(), retry_due(), failed(attempt=2), retry_due()).facts


def test_nothing_follows_the_end() -> None:
    for late in (ok(), failed(), CANCEL, RUN_TIMEOUT, retry_due(), start(job())):
        assert not after(job(), ok(), late).facts


def test_a_run_nobody_knows_makes_nothing_true() -> None:
    for command in (ok(), CANCEL, RUN_TIMEOUT):
        assert decide(None, command, NOW_MS) == Decision(None)


def test_a_plan_that_cannot_be_run_ends_its_run() -> None:
    end = ended(after(b'{"nodes":[]}'))
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.code == "invalid_plan"


def test_an_output_too_large_fails_its_step() -> None:
    end = ended(after(job(), ok(output=b'"%b"' % (b"x" * limits.STEP_OUTPUT_BYTES_MAX))))
    assert end.error is not None
    assert end.error.code == "output_too_large"


def _large_chain(on_error: Any) -> tuple[bytes, list[StepResult]]:
    names = [f"n{n}" for n in range(12)]
    plan = chain(*(node(name, on_error=on_error) for name in names))
    return plan, [ok(name, output=b'"%b"' % (b"x" * 250_000)) for name in names]


def test_what_would_be_too_large_to_be_given_fails_the_step() -> None:
    plan, results = _large_chain("fail")
    decision = after(plan, *results)
    assert decision.state is not None
    assert len(encode_state(decision.state)) < limits.RECORD_VALUE_BYTES_MAX
    facts = [after(plan, *results[:n]) for n in range(len(results))]
    last = next(one for one in facts if one.state is not None and one.state.ended)
    end = ended(last)
    assert end.error is not None
    assert end.error.code == "context_too_large"
    assert all(len(bytes(step.context)) <= limits.STEP_CONTEXT_BYTES_MAX for one in facts for step in one.steps)


def test_a_chain_that_goes_on_in_spite_of_it_still_ends() -> None:
    plan, results = _large_chain("continue")
    lives = [after(plan, *results[:n]) for n in range(len(results))]
    last = next(one for one in lives if one.state is not None and one.state.ended)
    assert ended(last).outcome == "completed"
    assert StepFailed in kinds(last)


def test_a_long_error_is_cut() -> None:
    long = StepResult(
        run=RUN,
        account=ACCOUNT,
        node="call",
        attempt=1,
        started_at=NOW_MS,
        duration_ms=1.0,
        error=ErrorInfo("http_500", "x" * 100_000),
    )
    fact = after(job(), long).facts[0]
    assert isinstance(fact, StepFailed)
    assert len(fact.error.message) == limits.ERROR_MESSAGE_CHARS_MAX


def test_a_step_can_be_asked_for_again_exactly() -> None:
    plan = chain(node("a"), node("b"))
    decision = after(plan, ok("a"))
    assert isinstance(decision.state, RunState)
    assert bytes(msgspec.json.encode(step_of(decision.state, "b", 1))) == msgspec.json.encode(decision.steps[0])


@pytest.mark.parametrize(
    ("policy", "waits_s"),
    [
        (RetryPolicy(initial_s=1, max_s=60), [1, 2, 4, 8, 16, 32, 60, 60]),
        (RetryPolicy(backoff="fixed", initial_s=5, max_s=60), [5, 5, 5]),
        (RetryPolicy(initial_s=0, max_s=60), [0, 0]),
    ],
)
def test_waits_grow_and_scatter(policy: RetryPolicy, waits_s: list[float]) -> None:
    for attempt, wait_s in enumerate(waits_s, start=1):
        several = {delay_ms(policy, attempt=attempt, seed=f"run {n}") for n in range(50)}
        assert all(abs(one - wait_s * 1000) <= wait_s * 1000 * limits.RETRY_JITTER + 1 for one in several)
        assert len(several) > 40 or wait_s == 0
        assert delay_ms(policy, attempt=attempt, seed="run 1") in several


# ── workflows: branches, joins, skipped nodes, last words ───────────────────────────────────────────────────────────
def branch(of: str, name: str) -> StepResult:
    return ok(of, output=b'{"branch":"%b"}' % name.encode())


FORK = graph(
    [condition(), node("yes"), node("no"), node("last")],
    [("if", "yes", "true"), ("if", "no", "else"), ("yes", "last"), ("no", "last")],
)


def test_a_condition_takes_its_branch_and_the_other_is_skipped() -> None:
    decision = after(FORK, branch("if", "true"))
    assert [(type(fact), getattr(fact, "node", "")) for fact in decision.facts] == [
        (StepCompleted, "if"),
        (StepStarted, "yes"),
        (StepSkipped, "no"),
    ]
    assert isinstance(decision.facts[0], StepCompleted)
    assert decision.facts[0].branch == "true"


def test_what_no_edge_names_is_else() -> None:
    assert [step.node for step in after(FORK, branch("if", "blue")).steps] == ["no"]


def test_a_join_does_not_wait_for_what_is_skipped() -> None:
    decision = after(FORK, branch("if", "true"), ok("yes", output=b"1"))
    assert [step.node for step in decision.steps] == ["last"]
    assert context(decision) == {
        "input": {"a": 100.0},
        "event": context(after(FORK))["event"],
        "steps": {"if": {"branch": "true"}, "yes": 1},
        "previous": {"yes": 1},
    }


def test_a_run_ends_when_all_that_is_left_is_skipped() -> None:
    plan = graph([condition(), node("yes"), node("more")], [("if", "yes", "true"), ("yes", "more")])
    decision = after(plan, branch("if", "false"))
    assert kinds(decision) == [StepCompleted, StepSkipped, StepSkipped, RunEnded]
    assert ended(decision).outcome == "completed"
    assert bytes(ended(decision).output) == b"null"


def test_a_condition_without_a_branch_fails_for_good() -> None:
    decision = after(FORK, ok("if"))
    error = ended(decision).error
    assert error is not None
    assert error.code == "no_branch"


def test_edges_may_go_by_how_a_step_ended() -> None:
    plan = graph(
        [node("try", on_error="continue"), node("well"), node("ill")],
        [("try", "well", "succeeded"), ("try", "ill", "failed")],
    )
    assert [step.node for step in after(plan, ok("try")).steps] == ["well"]
    assert [step.node for step in after(plan, failed("try", retryable=False)).steps] == ["ill"]


def test_an_impatient_join_begins_once_and_knows_only_the_way_it_was_reached_by() -> None:
    plan = graph([node("a"), node("b"), node("first", join="any")], [("a", "first"), ("b", "first")])
    decision = after(plan, ok("b", output=b"2"))
    assert [step.node for step in decision.steps] == ["first"]
    assert (context(decision)["steps"], context(decision)["previous"]) == ({"b": 2}, 2)
    later = after(plan, ok("b", output=b"2"), ok("a", output=b"1"))
    assert not later.steps
    assert later.state is not None
    assert step_of(later.state, "first", 1) == decision.steps[0]


def test_an_impatient_join_is_given_the_same_when_it_is_tried_again() -> None:
    policy = RetryPolicy(attempts=2, initial_s=1, max_s=1)
    plan = graph([node("a"), node("b"), node("first", join="any", retry=policy)], [("a", "first"), ("b", "first")])
    again = after(plan, ok("b", output=b"2"), ok("a", output=b"1"), failed("first"), retry_due("first"))
    assert context(again)["steps"] == {"b": 2}


def test_variables_are_given_to_every_step() -> None:
    plan = graph([node("a")], [], variables=Raw(b'{"x": 1e2}'))
    assert b'"variables":{"x": 1e2}}' in bytes(after(plan).steps[0].context)
    assert b"variables" not in bytes(after(job()).steps[0].context)


def test_last_words_tell_of_a_workflows_end() -> None:
    (step,) = after(graph([node("a")], []), ok("a", output=b'{"n":1}')).told
    assert (step.type, step.node, step.run) == ("workflow_ended", "", RUN)
    assert msgspec.json.decode(step.context)["previous"] == {
        "workflow_id": "wf_1",
        "workflow_name": "a graph",
        "version": 1,
        "test": False,
        "execution_id": RUN,
        "status": "completed",
        "completed_at": "2023-11-14T22:13:20.001Z",
        "error": None,
        "output": {"n": 1},
    }
    assert not after(job(), ok()).told


@pytest.mark.parametrize("end", [CANCEL, failed("a", retryable=False)])
def test_last_words_of_a_run_that_did_not_complete_say_failed(end: Any) -> None:
    (step,) = after(graph([node("a")], []), end).told
    said = msgspec.json.decode(step.context)["previous"]
    assert (said["status"], said["error"]["code"]) == ("failed", "cancelled" if end is CANCEL else "http_500")
