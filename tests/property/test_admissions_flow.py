"""Any flow, any course of asking, ending, waiting, changing and cancelling, with transactions lost at will.

Every run that asks is told one thing for good; no bound is ever passed; a floor, a priority and a debounce are kept;
what a list absorbs is in it once. The door's lost transactions and new lives must never show.
"""

from collections import Counter, defaultdict
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace_core.messages import (
    AbsorbRun,
    AdmitRun,
    Batch,
    CancelRun,
    Concurrency,
    Debounce,
    FlowControl,
    RefuseRun,
    RunWaiting,
    Throttle,
)
from tests.support.admitting import Door

KEYS = ("a", "b", "c")
SEEDS = st.integers(0, 2**32)
SECONDS = st.sampled_from([0.5, 1.0, 3.0, 10.0])


@st.composite
def concurrencies(draw: Any) -> Concurrency:
    total = draw(st.none() | st.integers(1, 4))
    ceiling = draw(st.integers(1, 3) if total is None else st.none() | st.integers(1, 3))
    most = min(number for number in (total, ceiling) if number is not None)
    return Concurrency(floor=draw(st.integers(0, most)) if total is not None else 0, ceiling=ceiling, total=total)


@st.composite
def debounces(draw: Any) -> Debounce:
    quiet_s, longer_s = draw(SECONDS), draw(SECONDS)
    return Debounce(
        mode=draw(st.sampled_from(["latest", "first", "all"])), quiet_s=quiet_s, longest_s=quiet_s + longer_s
    )


THROTTLES = st.builds(Throttle, limit=st.integers(1, 4), period_s=SECONDS)
BATCHES = st.builds(Batch, size=st.integers(2, 4), wait_s=SECONDS)


@st.composite
def flows(draw: Any) -> FlowControl:
    gathers = draw(st.sampled_from([None, "debounce", "batch"]))
    return FlowControl(
        concurrency=draw(st.none() | concurrencies()),
        throttle=draw(st.none() | THROTTLES),
        debounce=draw(debounces()) if gathers == "debounce" else None,
        batch=draw(BATCHES) if gathers == "batch" else None,
        drain=draw(st.integers(0, 5)) == 0,
    )


class Watched(Door):
    """A door whose every turn is checked against the flow in force."""

    def __init__(self, course: Random, flow: FlowControl, **bounds: int) -> None:
        self.course = course
        self.flow = flow
        self.running: Counter[str] = Counter()
        self.ready: dict[str, Any] = {}
        super().__init__(flow, **bounds)

    def change(self, flow: FlowControl | None, subscription: str = "sub_1") -> None:
        if flow is not None:
            self.flow = flow
        super().change(flow, subscription)

    def turn(self, *messages: Any) -> None:
        self.crashes = self.course.choice((0, 0, 0, 1, 2))
        super().turn(*messages)
        if self.course.random() < 0.1:
            self.task.crash()
        counts_who_waits(self)

    def _take(self, outputs: list[Any]) -> None:
        before = len(self.told)
        super()._take(outputs)
        for _, message in self.told[before:]:
            if isinstance(message, AdmitRun):
                self._began(message.run)

    def _began(self, run: str) -> None:
        key, concurrency = self.asked[run].key, self.flow.concurrency
        assert not self.flow.drain
        self.running[key] += 1
        if concurrency is not None:
            assert concurrency.ceiling is None or self.running[key] <= concurrency.ceiling
            assert concurrency.total is None or self.running.total() <= concurrency.total

    def end(self, run: str) -> None:
        self.running[self.live[run]] -= 1
        super().end(run)

    def step(self) -> None:
        """Something happens."""
        draw = self.course.random()
        if draw < 0.55:
            self.ask(self.course.choice(KEYS), priority=self.course.choice((1, 100)))
        elif draw < 0.75 and self.live:
            self.end(self.course.choice(sorted(self.live)))
        else:
            self.wait(self.course.choice((1, 100, 700, 2_000, 5_000)))


def counts_who_waits(door: Door) -> None:
    """What is held is who has asked and was told nothing for good; the oldest is so only where nobody is absorbed."""
    ends = door.ends()
    waiting = [asked.at for run, asked in door.asked.items() if run not in ends]
    held = door.held()
    assert sum(each.runs for each in held.values()) == len(waiting)
    assert all(each.runs for each in held.values())
    if held and not {"debounce", "batch"} & held.keys() and not door.of(AbsorbRun):
        assert min(each.oldest_at for each in held.values()) == min(waiting)


def is_told_once(door: Door) -> None:
    ends = door.ends()
    assert set(ends) == set(door.asked), "nobody is forgotten"
    assert all(len(told) == 1 for told in ends.values()), "and nobody is told twice"
    absorbed = {message.run: message.into for message in door.of(AbsorbRun)}
    for run in absorbed:
        into = run
        while into in absorbed:
            into = absorbed[into]
        assert into in door.begun() or isinstance(ends[into][0], CancelRun), "what absorbs goes on"


@given(course=SEEDS, flow=flows(), steps=st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_everyone_is_told_one_thing_and_no_bound_is_passed(course: int, flow: FlowControl, steps: int) -> None:
    door = Watched(Random(course), flow)
    for _ in range(steps):
        door.step()
    door.change(FlowControl())
    door.turn()
    while door.live:
        door.end(next(iter(door.live)))
    door.wait(60_000)
    is_told_once(door)
    assert not door.task.state, "nothing is left of it"


@given(course=SEEDS, first=flows(), changes=st.lists(flows(), max_size=4), steps=st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_so_it_is_when_the_flow_changes_and_events_cancel(
    course: int, first: FlowControl, changes: list[FlowControl], steps: int
) -> None:
    door = Door(first)
    chance = Random(course)
    for flow in [first, *changes]:
        door.change(flow)
        door.crashes = chance.choice((0, 1))
        for _ in range(steps):
            draw = chance.random()
            if draw < 0.6:
                door.ask(chance.choice(KEYS))
            elif draw < 0.75 and door.live:
                door.end(chance.choice(sorted(door.live)))
            elif draw < 0.85:
                door.cancel(chance.choice(KEYS))
            else:
                door.wait(chance.choice((1, 700, 5_000)))
            counts_who_waits(door)
        if chance.random() < 0.3:
            door.task.crash()
    door.change(FlowControl())
    door.turn()
    while door.live:
        door.end(next(iter(door.live)))
    door.wait(3_600_000)
    is_told_once(door)
    assert not door.task.state


@given(course=SEEDS, throttle=THROTTLES, steps=st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_no_period_holds_more_than_a_throttle_allows(course: int, throttle: Throttle, steps: int) -> None:
    door = Watched(Random(course), FlowControl(throttle=throttle))
    for _ in range(steps):
        door.step()
    began: dict[str, list[int]] = defaultdict(list)
    for at, message in door.told:
        if isinstance(message, AdmitRun):
            began[door.asked[message.run].key].append(at)
    period_ms = round(throttle.period_s * 1000)
    for times in began.values():
        for at in times:
            assert sum(at <= other < at + period_ms for other in times) <= throttle.limit
    door.wait(period_ms * (steps + 1))
    assert len(door.begun()) == len(door.asked), "it lets all through in time"


@given(course=SEEDS, debounce=debounces(), steps=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_a_burst_is_one_run_between_quiet_and_longest(course: int, debounce: Debounce, steps: int) -> None:
    chance = Random(course)
    door = Door(FlowControl(debounce=debounce))
    quiet_ms, longest_ms = round(debounce.quiet_s * 1000), round(debounce.longest_s * 1000)
    bursts: dict[str, list[list[tuple[int, str]]]] = {key: [] for key in KEYS}
    for _ in range(steps):
        key, at = chance.choice(KEYS), door.now_ms
        run = door.ask(key)
        of = bursts[key]
        if of and at < of[-1][-1][0] + quiet_ms and at < of[-1][0][0] + longest_ms:
            of[-1].append((at, run))
        else:
            of.append([(at, run)])
        door.crashes = chance.choice((0, 1))
        door.wait(chance.choice((0, 50, 400, 1_200, 20_000)))
    door.wait(longest_ms)
    began = {message.run: at for at, message in door.told if isinstance(message, AdmitRun)}
    for burst in (burst for of in bursts.values() for burst in of):
        members = [run for _, run in burst]
        (run,) = [run for run in members if run in began]
        assert run == members[-1 if debounce.mode == "latest" else 0]
        assert began[run] == min(burst[-1][0] + quiet_ms, burst[0][0] + longest_ms)
        if debounce.mode == "all":
            assert door.inputs(run) == [door.asked[member].offset for member in members]


@given(course=SEEDS, batch=BATCHES, steps=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_every_event_is_in_one_batch_and_none_is_too_large_or_waits_too_long(
    course: int, batch: Batch, steps: int
) -> None:
    chance = Random(course)
    door = Door(FlowControl(batch=batch))
    asked_at: dict[int, int] = {}
    for _ in range(steps):
        asked_at[len(door.asked)] = door.now_ms
        door.crashes = chance.choice((0, 1))
        door.ask(chance.choice(KEYS))
        door.wait(chance.choice((0, 0, 300, 4_000)))
    door.wait(round(batch.wait_s * 1000))
    seen: list[int] = []
    for at, message in door.told:
        if isinstance(message, AdmitRun):
            inputs = door.inputs(message.run)
            assert 1 <= len(inputs) <= batch.size
            assert all(at <= asked_at[n] + round(batch.wait_s * 1000) for n in inputs)
            assert len({list(door.asked.values())[n].key for n in inputs}) == 1
            seen += inputs
    assert sorted(seen) == list(range(steps))


@given(course=SEEDS, concurrency=concurrencies(), steps=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_who_begins_is_of_a_key_below_its_floor_then_the_more_urgent_then_the_older(
    course: int, concurrency: Concurrency, steps: int
) -> None:
    chance = Random(course)
    door = Door(FlowControl(concurrency=concurrency))
    running: Counter[str] = Counter()
    seen = 0
    for _ in range(steps):
        if chance.random() < 0.6 or not door.live:
            door.ask(chance.choice(KEYS), priority=chance.choice((1, 100)))
        else:
            run = chance.choice(sorted(door.live))
            running[door.live[run]] -= 1
            door.end(run)
        begun = door.begun()
        for run in begun[seen:]:
            chosen = door.asked[run]
            others = [door.asked[other] for other in door.asked if other not in begun[: begun.index(run) + 1]]
            for other in others:
                if concurrency.ceiling is not None and running[other.key] >= concurrency.ceiling:
                    continue
                assert _rank(chosen, running, concurrency) < _rank(other, running, concurrency)
            running[chosen.key] += 1
        seen = len(begun)


def _rank(one: Any, running: Counter[str], concurrency: Concurrency) -> tuple[bool, int, int]:
    return running[one.key] >= concurrency.floor, one.priority, one.offset


@given(course=SEEDS, flow=flows(), steps=st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_what_a_full_queue_refuses_is_told_and_what_waits_never_passes_its_bound(
    course: int, flow: FlowControl, steps: int
) -> None:
    door = Watched(Random(course), flow, waiting_max=3)
    for _ in range(steps):
        door.step()
        assert sum(key.startswith(b"wait/") for key in door.task.state) <= 3
    told = {message.run for message in door.of(RefuseRun)}
    waits = {message.run for message in door.of(RunWaiting)}
    assert set(door.asked) == set(door.ends()) | waits, "who was told nothing for good knows what it waits for"
    assert not told & set(door.begun())
