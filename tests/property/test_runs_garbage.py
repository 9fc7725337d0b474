"""Whatever stands on an input of orchestrator or scheduler, their partition goes on.

A record is handled, ignored or refused (dead letter); no other exception leaves a handler, and the next good record is
handled as if nothing had been. Values are noise, and good messages with members replaced by anything JSON can say.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.messages import (
    CancelRun,
    CancelTimer,
    ErrorInfo,
    Message,
    Raw,
    SetTimer,
    StepResult,
    TimerFired,
    decode,
    encode,
)
from millrace_core.messages import RunFact as AnyRunFact
from millrace_orchestrator import handlers as orchestrator
from millrace_scheduler import handlers as scheduler
from tests.support.plans import ACCOUNT, NOW_MS, chain, node, run_id, start
from tests.support.records import on, record
from tests.support.task import Task

RUN = run_id()
PLAN = chain(node("a"), node("b"), timeout_s=60)
ERROR = ErrorInfo("ill", "not well")
GOOD: list[Message] = [
    start(PLAN),
    CancelRun(run=RUN, account=ACCOUNT),
    TimerFired(run=RUN, account=ACCOUNT, purpose="timeout"),
    TimerFired(run=RUN, account=ACCOUNT, purpose="retry", node="a", n=1),
    StepResult(run=RUN, account=ACCOUNT, node="a", attempt=1, started_at=NOW_MS, duration_ms=1.5, output=Raw(b"{}")),
    StepResult(run=RUN, account=ACCOUNT, node="a", attempt=1, started_at=NOW_MS, duration_ms=1.5, error=ERROR),
    SetTimer(id="tmr_1", owner=RUN, account=ACCOUNT, due=NOW_MS, topic="run-commands-tx", key=RUN, record=Raw(b"{}")),
    CancelTimer(id="tmr_1", owner=RUN, account=ACCOUNT),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**31, 2**63, 2**64, 10**40, 1e308, -1e308])
    | st.text(max_size=5)
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)


@st.composite
def spoiled(draw: Any) -> bytes:
    """A good message with up to three members, at any depth, replaced or removed; or cut; or noise."""
    kind = draw(st.sampled_from(["noise", "cut", "members", "members", "members"]))
    value = encode(draw(st.sampled_from(GOOD)))
    if kind == "noise":
        return draw(st.binary(max_size=50))  # type: ignore[no-any-return]
    if kind == "cut":
        return value[: draw(st.integers(0, len(value)))]
    message = msgspec.json.decode(value)
    for _ in range(draw(st.integers(1, 3))):
        at: Any = message
        while True:
            names = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not names:
                break
            name = draw(st.sampled_from(names))
            if isinstance(at[name], dict | list) and at[name] and draw(st.booleans()):
                at = at[name]
                continue
            if isinstance(at, dict) and draw(st.booleans()):
                del at[name]
            else:
                at[name] = draw(ANYTHING)
            break
    return msgspec.json.encode(message)


KEYS = st.sampled_from([RUN, RUN, RUN, "other", None])


@given(
    values=st.lists(
        st.tuples(spoiled(), st.sampled_from(orchestrator.INPUTS), KEYS, st.sampled_from(["events:0:1", "x", None])),
        min_size=1,
        max_size=5,
    ),
    is_live=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_no_record_stops_the_orchestrator(
    values: list[tuple[bytes, str, str | None, str | None]], is_live: bool
) -> None:
    task = Task(orchestrator.OrchestratorHandler, orchestrator.READ_BACK)
    outputs = task.feed(record("run-commands", 0, start(PLAN), key=RUN, source="events:0:0")) if is_live else []
    for offset, (value, topic, key, source) in enumerate(values, start=1):
        outputs = outputs + task.feed(record(topic, offset, value, key=key, source=source))
    task.crash()
    for output in on(outputs, "run-facts"):
        decode(output.value, AnyRunFact)  # type: ignore[arg-type]
    good = start(PLAN, n=2)
    assert len(on(task.feed(record("run-commands", 99, good, key=good.run, source="events:0:9")), "steps")) == 1


@given(
    values=st.lists(st.tuples(spoiled(), st.sampled_from(scheduler.INPUTS), KEYS), min_size=1, max_size=5),
)
@settings(max_examples=200, deadline=None)
def test_no_record_stops_the_scheduler(values: list[tuple[bytes, str, str | None]]) -> None:
    task = Task(scheduler.SchedulerHandler, scheduler.READ_BACK)
    for offset, (value, topic, key) in enumerate(values):
        task.feed(record(topic, offset, value, key=key))
    task.wake(NOW_MS)
    task.crash()
    good = SetTimer(
        id="tmr_2", owner=RUN, account=ACCOUNT, due=NOW_MS, topic="deliveries-tx", key="we_1", record=Raw(b"{}")
    )
    task.feed(record("timers-tx", 99, good, key=RUN))
    assert b"we_1" in {output.key for output in task.wake(NOW_MS)}
