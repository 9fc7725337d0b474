"""Timers against a model: whatever is set, set again, cancelled and lost, each fires once, when due, or never."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millrace_core.ids import timer_id_of
from millrace_core.messages import CancelTimer, Raw, SetTimer
from millrace_core.record import header
from millrace_core.timers import TimerQueue
from millrace_scheduler.handlers import READ_BACK, SchedulerHandler
from tests.support.plans import ACCOUNT, NOW_MS, run_id
from tests.support.records import as_record, record
from tests.support.task import Task

OWNER = run_id()
# Few, so that one is often set again after it was forgotten.
KEYS = st.sampled_from([b"a", b"b", b"c"])


class QueueAgainstModel(RuleBasedStateMachine):
    """TimerQueue beside a dictionary of what is set."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TimerQueue()
        self.model: dict[bytes, int] = {}

    @rule(key=KEYS, due_ms=st.integers(0, 20))
    def add(self, key: bytes, due_ms: int) -> None:
        self.queue.add(key, due_ms)
        self.model.setdefault(key, due_ms)

    @rule(key=KEYS)
    def discard(self, key: bytes) -> None:
        self.queue.discard(key)
        self.model.pop(key, None)

    @rule(now_ms=st.integers(0, 20), limit=st.integers(0, 5))
    def take(self, now_ms: int, limit: int) -> None:
        taken = list(self.queue.take_due(now_ms, limit))
        due = sorted((at, key) for key, at in self.model.items() if at <= now_ms)
        assert [self.model.pop(key) for key in taken] == [at for at, _ in due[:limit]]

    @invariant()
    def agree(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.next_due_ms() == min(self.model.values(), default=None)


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(course=st.integers(0, 2**32), count=st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_each_timer_fires_once_when_due_or_was_cancelled_before(course: int, count: int) -> None:
    """Setters repeat themselves (those on `timers`), tasks die between any two transactions, cancels come any time."""
    chance = Random(course)
    task = Task(SchedulerHandler, READ_BACK)
    plain = {n for n in range(count) if chance.random() < 0.5}
    set_at = {n: NOW_MS + chance.randrange(5_000) for n in range(count)}
    fired: dict[int, int] = {}
    cancelled: set[int] = set()
    waiting, offset, now_ms = list(range(count)), 0, NOW_MS

    def feed(n: int, message: SetTimer | CancelTimer) -> None:
        topic = "timers" if n in plain else "timers-tx"
        one = record(topic, offset, message, key=OWNER, id=message.id, source=f"deliveries:0:{n}", at_ms=now_ms)
        for _ in range(chance.choice((0, 0, 1))):
            task.feed(one, crash=True)
        task.feed(one)

    while waiting or (task.handler.next_due_ms() is not None and len(fired) + len(cancelled) < count):
        offset, now_ms = offset + 1, now_ms + chance.randrange(1_000)
        had = [n for n in range(count) if n not in waiting]
        what = chance.random()
        if waiting and what < 0.4:
            n = waiting.pop(chance.randrange(len(waiting)))
            feed(n, _timer(n, set_at[n]))
        elif had and what < 0.6:
            n = chance.choice(had)
            if n in plain:
                feed(n, _timer(n, set_at[n]))
        elif had and what < 0.7:
            n = chance.choice(had)
            if n not in fired:
                cancelled.add(n)
            feed(n, CancelTimer(id=timer_id_of(OWNER, "retry", n), owner=OWNER, account=ACCOUNT))
        else:
            if chance.random() < 0.3:
                task.wake(now_ms, limit=3, crash=True)
            for output in task.wake(now_ms, limit=3):
                n = int(output.value or b"")
                assert n not in fired
                assert n not in cancelled
                assert set_at[n] <= now_ms
                assert header(as_record(output, 0), "id") == OWNER.encode()
                fired[n] = now_ms
    assert fired.keys() | cancelled == set(range(count))
    assert not any(key.startswith(b"timer/") for key in task.state)


def _timer(n: int, due_ms: int) -> SetTimer:
    return SetTimer(
        id=timer_id_of(OWNER, "retry", n),
        owner=OWNER,
        account=ACCOUNT,
        due=due_ms,
        topic="run-commands-tx",
        key=OWNER,
        record=Raw(b"%d" % n),
    )
