"""From event to run under a flow that comes and goes: matcher, orchestrator and admissions, each dying at will.

The matcher's batches are repeated under another control view (the subscription or the account gained, lost or changed
its flow in between), its records come late and twice; the two tasks lose transactions and begin new lives. Whatever the
course, each event has one run, which began at most once and has one end, and nothing is left in any state.
"""

from collections import defaultdict
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.event import Posted, make_event, to_output
from millrace_core.messages import (
    AccountControl,
    Batch,
    Concurrency,
    Debounce,
    FlowControl,
    PlanControl,
    Raw,
    RunEnded,
    RunFact,
    RunStarted,
    Step,
    SubscriptionControl,
    Throttle,
    decode,
    encode,
)
from millrace_core.record import Output, Written
from millrace_matcher.handlers import MatcherHandler
from millrace_orchestrator.admissions_handler import AdmissionsHandler
from millrace_orchestrator.flows import Flows
from millrace_orchestrator.handlers import READ_BACK, OrchestratorHandler
from tests.support.plans import ACCOUNT, NOW_MS, job
from tests.support.records import on
from tests.support.run_worlds import answer
from tests.support.task import Task

SUB, JOB = f"sub_{1:032x}", f"job_{1:032x}"
FLOWS: tuple[FlowControl | None, ...] = (
    None,
    FlowControl(),
    FlowControl(key="input.n % 2", concurrency=Concurrency(ceiling=1)),
    FlowControl(throttle=Throttle(limit=1, period_s=5.0)),
    FlowControl(debounce=Debounce(quiet_s=1.0, longest_s=3.0)),
    FlowControl(batch=Batch(size=2, wait_s=2.0)),
    FlowControl(drain=True),
)
ACCOUNT_FLOWS: tuple[FlowControl | None, ...] = (
    None,
    FlowControl(),
    FlowControl(concurrency=Concurrency(total=1)),
    FlowControl(key="input.n % 3", throttle=Throttle(limit=1, period_s=2.0)),
    FlowControl(drain=True),
)
InForce = tuple[FlowControl | None, FlowControl | None]
"""The subscription's flow and the account's."""


class World:
    """The log between the three, in one partition each."""

    def __init__(self, course: Random) -> None:
        self.course = course
        self.now_ms = NOW_MS
        self.matcher = MatcherHandler()
        self.flows = Flows()
        self.had_flow = [False, False]
        plan = PlanControl(account=ACCOUNT, plan=Raw(job()))
        self.matcher.followers["plan"].apply(ACCOUNT, JOB, encode(plan))
        self.runs = Task(OrchestratorHandler, READ_BACK)
        self.admissions = Task(lambda: AdmissionsHandler(self.flows), ())
        self.waiting: dict[str, list[Output]] = defaultdict(list)
        self.offsets: dict[str, int] = defaultdict(int)
        self.facts: dict[str, list[Any]] = defaultdict(list)

    def change(self, in_force: InForce) -> None:
        """As the API publishes it: who had a flow once says so with an empty one."""
        self.had_flow = [had or flow is not None for had, flow in zip(self.had_flow, in_force, strict=True)]
        flow, account_flow = (
            flow or (FlowControl() if had else None) for had, flow in zip(self.had_flow, in_force, strict=True)
        )
        control = SubscriptionControl(
            account=ACCOUNT, pattern="e:custom/x", target_kind="plan", target_id=JOB, created_at=0, flow=flow
        )
        for kind, id, value in (
            ("subscription", SUB, encode(control)),
            ("account", ACCOUNT, encode(AccountControl(flow=account_flow))),
        ):
            self.matcher.followers[kind].apply(ACCOUNT, id, value)
            self.flows.apply(ACCOUNT, id, value)

    def match(self, events: list[Written], flows: list[InForce]) -> set[str]:
        """A batch, handled once for each of the flows: all but the last died before their commit. Any of a dead one's
        outputs may be on the log. Gives the runs that it came to."""
        named: set[str] = set()
        for n, flow in enumerate(flows):
            self.change(flow)
            outputs = self.matcher.handle(events, n).outputs
            named |= {(output.key or b"").decode() for output in outputs}
            is_last = n == len(flows) - 1
            self.waiting["run-commands"] += [one for one in outputs if is_last or self.course.random() < 0.6]
        return named

    def go_on(self) -> None:
        """Some records are read, some time passes."""
        for topic in list(self.waiting):
            task = self.admissions if topic == "admissions" else self.runs
            count = self.course.randint(0, 3)
            batch, self.waiting[topic] = self.waiting[topic][:count], self.waiting[topic][count:]
            self._turn(task, [self._record(output) for output in batch])
        self.now_ms += self.course.choice((0, 1, 900, 4_000))
        due = self.admissions.handler.next_due_ms()
        if due is not None and due <= self.now_ms:
            self._turn(self.admissions, [])

    def settle(self) -> None:
        self.change((FlowControl(), FlowControl()))
        for _ in range(2_000):
            if not any(self.waiting.values()) and self.admissions.handler.next_due_ms() is None:
                return
            self.go_on()

    def _record(self, output: Output) -> Written:
        self.offsets[output.topic] += 1
        return Written(
            output.topic, 0, self.offsets[output.topic], self.now_ms, output.key, output.value, output.headers
        )

    def _turn(self, task: Task, records: list[Written]) -> None:
        for _ in range(self.course.choice((0, 0, 1, 2))):
            task.turn(*records, now_ms=self.now_ms, crash=True)
        outputs = task.turn(*records, now_ms=self.now_ms)
        if self.course.random() < 0.1:
            task.crash()
        assert not on(outputs, "dead-letters-tx")
        for output in outputs:
            if output.topic == "run-facts":
                fact: Any = decode(output.value, RunFact)  # type: ignore[arg-type]
                self.facts[fact.run].append(fact)
            elif output.topic == "steps":
                result = answer(decode(output.value, Step), seed=1, failures=0)
                self.waiting["step-results"].append(Output("step-results", result.run.encode(), encode(result)))
            elif output.topic in ("admissions", "run-commands-tx"):
                self.waiting[output.topic].append(output)


def posted(n: int) -> Written:
    event = make_event(
        Posted("e:custom/x", Raw(b'{"n":%d}' % n), unique_key=f"k{n}"),
        account=ACCOUNT,
        now_ms=NOW_MS,
    )
    output = to_output(event)
    return Written("millrace.events.v1", 0, n, NOW_MS, output.key, output.value, output.headers)


IN_FORCE = st.tuples(st.sampled_from(FLOWS), st.sampled_from(ACCOUNT_FLOWS))


@given(
    course=st.integers(0, 2**32),
    batches=st.lists(st.tuples(st.integers(1, 3), st.lists(IN_FORCE, min_size=1, max_size=3)), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_every_match_has_one_run_with_one_end(course: int, batches: list[Any]) -> None:
    world = World(Random(course))
    named: set[str] = set()
    n = 0
    for count, flows in batches:
        named |= world.match([posted(n + i) for i in range(count)], flows)
        n += count
        for _ in range(world.course.randint(0, 5)):
            world.go_on()
    world.settle()
    assert len(named) == n
    assert set(world.facts) == named
    for facts in world.facts.values():
        ends = [fact for fact in facts if isinstance(fact, RunEnded)]
        starts = [fact for fact in facts if isinstance(fact, RunStarted)]
        assert [end.outcome for end in ends] == [("completed" if starts else "absorbed")]
        assert len(starts) <= 1
    assert not world.admissions.state
    assert not any(key.startswith(b"run/") for key in world.runs.state)
