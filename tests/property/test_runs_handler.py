"""Many runs through the orchestrator's handler while everything comes again, late, and its task keeps dying.

The matcher and the executors write at least once: any of their records may be on the log several times, later and
under a new offset. Transactions are lost and done again. Each run's facts must be those of its straight course, each
attempt must be asked for once, and nothing may be left in the state at the end.
"""

from collections import defaultdict
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.messages import (
    Message,
    RunCommand,
    RunEnded,
    RunFact,
    SetTimer,
    StartRun,
    Step,
    TimerCommand,
    decode,
)
from millrace_core.record import Written
from millrace_core.runs import LAST_WORDS
from millrace_orchestrator.handlers import READ_BACK, OrchestratorHandler
from millrace_orchestrator.shares import Shares
from tests.support.plans import NOW_MS, start
from tests.support.records import on, record
from tests.support.run_worlds import answer, plans, straight, timeless, workflows
from tests.support.task import Task


class Partition:
    """The log's side: what waits to be read, and what the task writes for others to answer."""

    def __init__(self, course: Random, *, seed: int, failures: int, released_max: int) -> None:
        self.course, self.seed, self.failures = course, seed, failures
        self.task = Task(lambda: OrchestratorHandler(shares=Shares(released_max=released_max)), READ_BACK)
        self.waiting: list[tuple[str, Message, str | None]] = []
        self.had: list[tuple[str, Message, str | None]] = []
        self.offsets: dict[str, int] = defaultdict(int)
        self.steps: list[Step] = []
        self.facts: dict[str, list[RunFact]] = defaultdict(list)

    def run(self) -> None:
        while self.waiting:
            batch = [self._pick() for _ in range(self.course.randint(1, 4)) if self.waiting]
            records = [self._append(one) for one in batch]
            for _ in range(self.course.choice((0, 0, 1, 2))):
                self.task.feed(*records, crash=True)
            self._take(self.task.feed(*records))
        for one in self.had:
            if one[0] != "run-commands-tx":
                self._take(self.task.feed(self._append(one)))

    def _pick(self) -> tuple[str, Message, str | None]:
        # What a transaction wrote is there once; all else may come again at any later time.
        repeatable = [one for one in self.had if one[0] != "run-commands-tx"]
        if repeatable and self.course.random() < 0.25:
            return self.course.choice(repeatable)
        one = self.waiting.pop(self.course.randrange(len(self.waiting)))
        self.had.append(one)
        return one

    def _append(self, one: tuple[str, Message, str | None]) -> Written:
        topic, message, source = one
        self.offsets[topic] += 1
        run: str = message.run  # type: ignore[attr-defined]
        return record(topic, self.offsets[topic], message, key=run, source=source, at_ms=NOW_MS + len(self.task.log))

    def _take(self, outputs: list[Any]) -> None:
        assert not on(outputs, "dead-letters-tx")
        for output in on(outputs, "run-facts"):
            self.facts[output.key.decode()].append(decode(output.value, RunFact))  # type: ignore[arg-type,union-attr]
        for output in on(outputs, "steps"):
            step = decode(output.value, Step)
            self.steps.append(step)
            self.waiting.append(("step-results", answer(step, seed=self.seed, failures=self.failures), None))
        for output in on(outputs, "timers-tx"):
            timer: Any = decode(output.value, TimerCommand)  # type: ignore[arg-type]
            if isinstance(timer, SetTimer):
                fired: Any = decode(bytes(timer.record), RunCommand)  # type: ignore[arg-type]
                self.waiting.append(("run-commands-tx", fired, None))


@given(
    course=st.integers(0, 2**32),
    lines=st.lists(plans(is_line=True), min_size=1, max_size=4),
    seed=st.integers(0, 1_000),
    failures=st.integers(0, 6),
    released_max=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_each_run_takes_its_straight_course(
    course: int, lines: list[bytes], seed: int, failures: int, released_max: int
) -> None:
    partition = Partition(Random(course), seed=seed, failures=failures, released_max=released_max)
    starts: list[StartRun] = [start(plan, n=n) for n, plan in enumerate(lines)]
    partition.waiting += [("run-commands", one, f"events:0:{n}") for n, one in enumerate(starts)]
    partition.run()
    for n, (one, plan) in enumerate(zip(starts, lines, strict=True)):
        expected = straight(plan, seed=seed, failures=failures, n=n)
        assert timeless(partition.facts[one.run]) == timeless(expected)
    assert len({step.key for step in partition.steps}) == len(partition.steps)
    assert not partition.task.state


@given(
    course=st.integers(0, 2**32),
    graphs=st.lists(workflows(), min_size=1, max_size=3),
    seed=st.integers(0, 1_000),
    failures=st.integers(0, 6),
    released_max=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_each_workflow_takes_its_branches_once_and_says_its_last_words_once(
    course: int, graphs: list[bytes], seed: int, failures: int, released_max: int
) -> None:
    partition = Partition(Random(course), seed=seed, failures=failures, released_max=released_max)
    starts: list[StartRun] = [start(plan, n=n) for n, plan in enumerate(graphs)]
    partition.waiting += [("run-commands", one, f"events:0:{n}") for n, one in enumerate(starts)]
    partition.run()
    for n, (one, plan) in enumerate(zip(starts, graphs, strict=True)):
        expected = straight(plan, seed=seed, failures=failures, n=n)
        facts = partition.facts[one.run]
        ends = [fact.outcome for fact in (facts[-1], expected[-1]) if isinstance(fact, RunEnded)]
        assert len(ends) == 2
        assert ends[0] == ends[1]
        if ends[0] == "completed":
            assert sorted(timeless(facts)) == sorted(timeless(expected))
    assert len({step.key for step in partition.steps}) == len(partition.steps)
    assert sorted(step.run for step in partition.steps if step.type == LAST_WORDS) == sorted(one.run for one in starts)
    assert not partition.task.state
