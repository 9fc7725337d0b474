"""The decider under any order, repetition and loss of turns: the same facts, one end, and nothing after it.

A course is drawn: which waiting command comes next, whether an old one comes again before it, whether the process dies
before the turn is kept. The straight course of the same plan and executor says what must come out.
"""

from functools import reduce
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.messages import (
    CancelRun,
    Raw,
    RunEnded,
    RunFact,
    SetTimer,
    Step,
    StepCompleted,
    StepFailed,
    StepSkipped,
    StepStarted,
    TimerFired,
    decode,
)
from millrace_core.plans import Graph, graph_of
from millrace_core.runs import (
    Command,
    RunState,
    decide,
    decode_state,
    encode_state,
    evolve,
    opened,
    running,
    step_of,
)
from tests.support.plans import ACCOUNT, NOW_MS, run_id, start
from tests.support.run_worlds import answer, plans, straight, timeless, workflows

SEEDS = st.integers(0, 1_000)
FAILURES = st.integers(0, 6)


class Course:
    """One run driven as drawn, to the point where nothing waits any more."""

    def __init__(self, data: Any, plan: bytes, *, seed: int, failures: int) -> None:
        self.data, self.seed, self.failures = data, seed, failures
        self.begun = start(plan)
        self.waiting: list[Command] = [self.begun]
        self.had: list[Command] = []
        self.state: RunState | None = None
        self.facts: list[RunFact] = []
        self.steps: list[Step] = []
        self.told: list[Step] = []
        self.now_ms = NOW_MS

    def run(self) -> "Course":
        while self.waiting:
            what = self.data.draw(st.sampled_from(["next", "next", "next", "again", "die"]))
            if what == "again" and self.had:
                self.turn(self.data.draw(st.sampled_from(self.had)))
                continue
            at = self.data.draw(st.integers(0, len(self.waiting) - 1))
            if what == "die":
                decide(self.state, self.waiting[at], self.now_ms)
                continue
            command = self.waiting.pop(at)
            self.turn(command)
            self.had.append(command)
        for command in self.had:
            self.turn(command)
        return self

    def turn(self, command: Command) -> None:
        state = None if self.state is None else decode_state(encode_state(self.state))
        self.now_ms += self.data.draw(st.integers(0, 100_000))
        decision = decide(state, command, self.now_ms)
        self.state = decision.state
        self.facts += decision.facts
        self.steps += decision.steps
        self.told += decision.told
        self.waiting += [answer(step, seed=self.seed, failures=self.failures) for step in decision.steps]
        self.waiting += [decode(bytes(one.record), TimerFired) for one in decision.timers if isinstance(one, SetTimer)]


def has_one_end(facts: list[RunFact]) -> bool:
    return [isinstance(fact, RunEnded) for fact in facts] == [False] * (len(facts) - 1) + [True]


def outcome(facts: list[RunFact]) -> str:
    end = facts[-1]
    assert isinstance(end, RunEnded)
    return end.outcome


@given(data=st.data(), plan=plans(is_line=True), seed=SEEDS, failures=FAILURES)
@settings(max_examples=150, deadline=None)
def test_a_line_has_the_same_facts_on_every_course(data: Any, plan: bytes, seed: int, failures: int) -> None:
    course = Course(data, plan, seed=seed, failures=failures).run()
    assert timeless(course.facts) == timeless(straight(plan, seed=seed, failures=failures))


@given(data=st.data(), plan=plans(is_line=False), seed=SEEDS, failures=FAILURES)
@settings(max_examples=150, deadline=None)
def test_a_graph_that_completes_has_the_same_facts_on_every_course(
    data: Any, plan: bytes, seed: int, failures: int
) -> None:
    expected = straight(plan, seed=seed, failures=failures)
    course = Course(data, plan, seed=seed, failures=failures).run()
    assert has_one_end(course.facts)
    assert outcome(course.facts) == outcome(expected)
    if outcome(expected) == "completed":
        assert sorted(timeless(course.facts)) == sorted(timeless(expected))


@given(data=st.data(), plan=plans(is_line=False), seed=SEEDS, failures=FAILURES)
@settings(max_examples=100, deadline=None)
def test_the_state_is_the_fold_of_the_facts(data: Any, plan: bytes, seed: int, failures: int) -> None:
    course = Course(data, plan, seed=seed, failures=failures).run()
    assert reduce(evolve, course.facts, opened(course.begun)) == course.state


@given(data=st.data(), plan=plans(is_line=False), seed=SEEDS, failures=FAILURES)
@settings(max_examples=100, deadline=None)
def test_attempts_are_bounded_counted_up_and_asked_for_once(data: Any, plan: bytes, seed: int, failures: int) -> None:
    course = Course(data, plan, seed=seed, failures=failures).run()
    for id, node in graph_of(plan).nodes.items():
        begun = [fact.attempt for fact in course.facts if isinstance(fact, StepStarted) and fact.node == id]
        assert begun == list(range(1, len(begun) + 1))
        assert len(begun) <= node.retry.attempts
        again = [fact for fact in course.facts if isinstance(fact, StepFailed) and fact.node == id and fact.retry_at]
        assert all(fact.retry_at is not None and fact.retry_at >= fact.at for fact in again)
    assert len({step.key for step in course.steps}) == len(course.steps)
    assert all(bytes(step.context).startswith(b'{"input":{"a": 1e2},') for step in course.steps)


@given(data=st.data(), plan=plans(is_line=False), seed=SEEDS, failures=FAILURES, is_timeout=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whenever_a_run_is_cancelled_it_ends_once(
    data: Any, plan: bytes, seed: int, failures: int, is_timeout: bool
) -> None:
    if is_timeout:
        plan = plan[:-1] + b',"timeout_s":60}'
    course = Course(data, plan, seed=seed, failures=failures)
    course.turn(course.waiting.pop())
    if not is_timeout:
        course.waiting.append(CancelRun(run=run_id(), account=ACCOUNT))
    course.run()
    assert has_one_end(course.facts)
    assert reduce(evolve, course.facts, opened(course.begun)) == course.state


@given(data=st.data(), plan=workflows(), seed=SEEDS, failures=FAILURES)
@settings(max_examples=300, deadline=None)
def test_a_workflow_takes_the_same_branches_on_every_course(data: Any, plan: bytes, seed: int, failures: int) -> None:
    expected = straight(plan, seed=seed, failures=failures)
    course = Course(data, plan, seed=seed, failures=failures).run()
    assert has_one_end(course.facts)
    assert outcome(course.facts) == outcome(expected)
    assert reduce(evolve, course.facts, opened(course.begun)) == course.state
    if outcome(expected) == "completed":
        assert sorted(timeless(course.facts)) == sorted(timeless(expected))
    assert len(course.told) == 1


@given(data=st.data(), plan=workflows(), seed=SEEDS, failures=FAILURES)
@settings(max_examples=200, deadline=None)
def test_of_a_workflow_that_completes_every_node_ended_or_was_skipped_as_its_edges_say(
    data: Any, plan: bytes, seed: int, failures: int
) -> None:
    course = Course(data, plan, seed=seed, failures=failures).run()
    if outcome(course.facts) != "completed":
        return
    graph, begun, skipped = graph_of(plan), set(), set()
    ended: dict[str, str] = {}
    for fact in course.facts:
        if isinstance(fact, StepStarted):
            begun.add(fact.node)
        elif isinstance(fact, StepSkipped):
            skipped.add(fact.node)
        elif isinstance(fact, StepCompleted):
            ended[fact.node] = fact.branch or "succeeded"
        elif isinstance(fact, StepFailed):
            ended[fact.node] = "failed"
    assert begun | skipped == set(graph.nodes)
    assert not begun & skipped
    for id in graph.nodes:
        taken = [one for one in graph.predecessors[id] if one in begun and fits(graph, one, id, ended[one])]
        assert (id in begun) == bool(taken or id in graph.entries)


def fits(graph: Graph, source: str, to: str, end: str) -> bool:
    """Whether the edge is taken, as the documentation says it in words."""
    when = graph.whens.get((source, to))
    if when is None:
        return True
    if when == "succeeded":
        return end != "failed"
    if when == "else":
        return end != "failed" and end not in graph.branches[source]
    return when == end


@given(data=st.data(), plan=workflows(), seed=SEEDS, failures=FAILURES)
@settings(max_examples=150, deadline=None)
def test_a_step_that_is_held_back_is_given_what_was_decided(data: Any, plan: bytes, seed: int, failures: int) -> None:
    """However much has ended meanwhile, an impatient join's context stays that of its beginning."""
    course = Course(data, plan, seed=seed, failures=failures)
    asked: dict[tuple[str, int], Step] = {}
    while course.waiting:
        course.turn(course.waiting.pop(data.draw(st.integers(0, len(course.waiting) - 1))))
        asked.update({(step.node, step.attempt): step for step in course.steps})
        if course.state is not None and not course.state.ended:
            for node, attempt in running(course.state).items():
                assert step_of(course.state, node, attempt) == asked[node, attempt]


def test_raw_payloads_are_compared_by_their_bytes() -> None:
    # The equality of states above stands on this.
    assert Raw(b"1") == Raw(b"1")
