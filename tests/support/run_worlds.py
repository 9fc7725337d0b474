"""Plans and executors drawn by hypothesis, and the straight course of a run to compare any other course with."""

import zlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import strategies as st

from millrace_core.messages import ErrorInfo, Raw, RunFact, SetTimer, Step, StepResult, TimerFired, decode
from millrace_core.plans import Node, RetryPolicy
from millrace_core.runs import Command, decide
from tests.support.plans import NOW_MS, condition, graph, node, start

POLICIES = st.builds(RetryPolicy, attempts=st.integers(1, 3), initial_s=st.just(1.0), max_s=st.just(10.0))


@st.composite
def plans(draw: Any, *, is_line: bool) -> bytes:
    """A line, or any graph whose edges lead onwards, of one to five nodes."""
    names = [f"n{n}" for n in range(draw(st.integers(1, 5)))]
    nodes = [node(name, retry=draw(POLICIES), on_error=draw(st.sampled_from(["fail", "continue"]))) for name in names]
    if is_line:
        edges = set(pairwise(names))
    else:
        onwards = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
        edges = draw(st.sets(st.sampled_from(onwards))) if onwards else set()
    return graph(nodes, sorted(edges))


BRANCHES = ("true", "false", "else", "other")


@st.composite
def workflows(draw: Any) -> bytes:
    """Any graph of up to seven nodes with conditions, labelled edges and joins of both kinds."""
    names = [f"n{n}" for n in range(draw(st.integers(2, 7)))]
    nodes = [_drawn(draw, name) for name in names]
    onwards = [(one, other) for at, one in enumerate(nodes) for other in nodes[at + 1 :]]
    chosen = draw(st.sets(st.integers(0, len(onwards) - 1), min_size=1))
    edges = [(onwards[n][0].id, onwards[n][1].id, draw(_whens(onwards[n][0].type))) for n in sorted(chosen)]
    return graph(nodes, edges)


def _drawn(draw: Any, name: str) -> Node:
    more = {
        "retry": draw(POLICIES),
        "on_error": draw(st.sampled_from(["fail", "continue", "continue"])),
        "join": draw(st.sampled_from(["all", "any"])),
    }
    return condition(name, **more) if draw(st.booleans()) else node(name, **more)


def _whens(type: str) -> Any:
    ends = [None, "succeeded", "failed"]
    return st.sampled_from([None, *BRANCHES[:3], *BRANCHES[:3]] if type == "condition" else [None, *ends])


def answer(step: Step, *, seed: int, failures: int) -> StepResult:
    """What an executor of this seed says to an attempt: the same each time. `failures` of ten attempts fail."""
    drawn = zlib.crc32(f"{seed}/{step.run}/{step.node}/{step.attempt}".encode())
    error = ErrorInfo("ill", f"attempt {step.attempt}", retryable=drawn % 7 != 0) if drawn % 10 < failures else None
    output = Raw(b"null") if error else Raw(b'{"key":"%b"}' % step.key.encode())
    if step.type == "condition" and not error:
        branch = BRANCHES[:2][drawn // 10 % 2] if drawn % 3 else "other"
        output = Raw(b'{"branch":"%b"}' % branch.encode())
    return StepResult(
        run=step.run,
        account=step.account,
        node=step.node,
        attempt=step.attempt,
        started_at=NOW_MS,
        duration_ms=float(drawn % 100),
        error=error,
        output=output,
    )


def timeless(facts: Iterable[RunFact]) -> list[bytes]:
    """Facts without their instants, which a delay may move, and without who came first, which it may change."""
    return [_timeless(fact) for fact in facts]


def _timeless(fact: RunFact) -> bytes:
    members = msgspec.json.decode(msgspec.json.encode(fact))
    members.pop("at")
    members.pop("behind", None)
    if "retry_at" in members:
        members["retry_at"] = "later"
    return msgspec.json.encode(members)


def straight(plan: bytes, *, seed: int, failures: int, n: int = 1) -> list[RunFact]:
    """The facts of a run to which everything comes once, in the order it was asked for."""
    facts: list[RunFact] = []
    queue: list[Command] = [start(plan, n=n)]
    state, now_ms = None, NOW_MS
    while queue:
        decision = decide(state, queue.pop(0), now_ms)
        state, now_ms = decision.state, now_ms + 1
        facts += decision.facts
        queue += [answer(step, seed=seed, failures=failures) for step in decision.steps]
        queue += [decode(bytes(one.record), TimerFired) for one in decision.timers if isinstance(one, SetTimer)]
    return facts
