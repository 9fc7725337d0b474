"""A model of the world around the matcher: crashes, zombies, changes of control, any subset of sends acked.

The real `MatcherHandler` decides every batch and the real `SourceWindow` drops what comes twice; only the log, the
processor's order of steps, the orchestrator's and dispatcher's reading and the projector's union are modelled. A
schedule is a seed. Each rule of docs/adr/0001 can be left out (`Rules`), and must then be seen to fail.
One tick is a hundredth of the uniqueKey window, so that a few steps cross days.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from millrace_core import ids, limits, record
from millrace_core.event import Posted, make_event, to_output
from millrace_core.handling import Handled
from millrace_core.messages import (
    EndpointControl,
    Event,
    EventFact,
    PlanControl,
    Raw,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_core.record import Output, Received, Written, header, parse_source
from millrace_core.seen import SourceWindow
from millrace_matcher.handlers import MatcherHandler
from millrace_matcher.unique_keys import UniqueKeys

WINDOW = 100  # ticks
TICK_MS = limits.UNIQUE_KEY_WINDOW_MS // WINDOW
START_MS = 20_000 * ids.DAY_MS
SOURCE_OFFSETS = 8  # the real bound is 10,000; a batch here has at most 4 records
ACCOUNT = "acc_1"
IDENTIFIER = "e:custom/tick"
EVENTS = "millrace.events.v1"


def _id(prefix: str, n: int) -> str:
    return f"{prefix}_{n:032x}"


PLAN, ENDPOINT = _id("job", 1), _id("we", 1)
ALWAYS, RUN_SUB, DELIVERY_SUB = _id("sub", 0), _id("sub", 1), _id("sub", 2)
CHANGING = (RUN_SUB, DELIVERY_SUB)
_PLAN = encode(PlanControl(account=ACCOUNT, plan=Raw(b'{"id":"job"}')))
_ENDPOINT = encode(EndpointControl(account=ACCOUNT, url="https://a.example", secrets=("s",)))


def _subscription(id: str, created_at: int) -> bytes:
    kind, target = ("endpoint", ENDPOINT) if id == DELIVERY_SUB else ("plan", PLAN)
    return encode(
        SubscriptionControl(
            account=ACCOUNT,
            pattern="e:custom/*" if id == RUN_SUB else IDENTIFIER,
            target_kind=kind,  # type: ignore[arg-type]
            target_id=target,
            created_at=created_at,
        )
    )


@lru_cache(maxsize=1024)
def child_of(event: str, subscription: str, replay: str) -> str:
    """The run or delivery that this subscription makes of this event."""
    if subscription == DELIVERY_SUB:
        return ids.delivery_id_of(event, ENDPOINT, replay)
    return ids.run_id_of(event, subscription, replay)


@dataclass(frozen=True)
class Rules:
    """The rules, each of which can be left out; and the parts that carry one, which can be broken."""

    facts_last: bool = True
    union: bool = True
    source_window: bool = True
    stale_facts: bool = True
    commit_last: bool = True
    restore: bool = True
    own_claim_downstream: bool = True
    keys: Callable[["World"], UniqueKeys] = lambda world: UniqueKeys()
    handler: type[MatcherHandler] = MatcherHandler


class ForgetfulWindow(SourceWindow):
    """The simple way: an id is remembered for a while, whatever the log did meanwhile."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self._had: dict[str, int] = {}

    def check(self, source: record.Source, id: str, own_offset: int) -> str:  # type: ignore[override]
        had = self._had.get(id)
        return "repeat" if had is not None and self._world.now - had < WINDOW // 2 else "new"

    def add(self, source: record.Source, id: str, own_offset: int) -> None:
        self._had[id] = self._world.now


class ClaimlessWindow(SourceWindow):
    """A window that does not know which record claimed an id."""

    def check(self, source: record.Source, id: str, own_offset: int) -> str:  # type: ignore[override]
        return super().check(source, id, -1)


@dataclass
class Reader:
    """The orchestrator or the dispatcher: reads its topic, handles each new id, may die between handling and commit."""

    world: "World"
    log: list[tuple[record.Source, str]] = field(default_factory=list)
    position: int = 0  # committed
    began: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    stale: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.window = self._window()

    def _window(self) -> SourceWindow:
        rules = self.world.rules
        if not rules.source_window:
            return ForgetfulWindow(self.world)
        kind = SourceWindow if rules.own_claim_downstream else ClaimlessWindow
        return kind(offsets=SOURCE_OFFSETS)

    def append(self, output: Output) -> None:
        source, id = parse_source(header(output, record.SOURCE)), header(output, record.ID)  # type: ignore[arg-type]
        assert source is not None
        assert id is not None
        self.log.append((source, id.decode()))

    def read(self, *, dies: bool) -> None:
        """Handle everything there is. When it `dies` some of it is not done and nothing committed; the next one builds
        its window from the log, perhaps past the committed position, for some of that may be done."""
        coin = self.world.random.random
        for own in range(self.position, len(self.log)):
            self._one(own, done=not dies or coin() < 0.5)
        if not dies:
            self.position = len(self.log)
        elif self.world.rules.source_window:
            self.window = self._window()
            to = min(len(self.log), self.position + self.world.random.randrange(4))
            for own in range(to):
                source, id = self.log[own]
                if self.window.check(source, id, own) == "new":
                    self.window.add(source, id, own)

    def _one(self, own: int, *, done: bool) -> None:
        source, id = self.log[own]
        verdict = self.window.check(source, id, own)
        if verdict == "new":
            self.window.add(source, id, own)
            if done:
                self.began[id].add(own)
        elif verdict == "stale":
            self.stale.add(id)


class World:
    """One schedule, run to its end by `run`; `faults` says what came out wrong."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.now = 0
        self.control: list[tuple[int, str, str, bytes | None]] = [
            (0, "plan", PLAN, _PLAN),
            (0, "endpoint", ENDPOINT, _ENDPOINT),
            *((0, "subscription", id, _subscription(id, START_MS)) for id in (ALWAYS, *CHANGING)),
        ]
        self.events: list[Written] = []
        self.keys: list[tuple[str | None, str | None]] = []  # of each event: uniqueKey, replay
        self.committed = 0
        self.changelog: list[tuple[bytes, bytes, int]] = []
        self.facts: list[EventFact] = []
        self.fact_sources: list[int] = []
        self.runs, self.deliveries = Reader(self), Reader(self)
        self.zombies: list[tuple[int, list[Output | tuple[int, bytes, bytes]]]] = []
        self.handler = self._life()
        self.seen_control = len(self.control)

    @property
    def now_ms(self) -> int:
        return START_MS + self.now * TICK_MS

    # ── the matcher's process ──
    def _life(self) -> MatcherHandler:
        """A new owner: everything known from the logs alone."""
        handler = self.rules.handler()
        handler.unique_keys = self.rules.keys(self)
        for entry in self.control:
            self._follow(handler, entry)
        self.seen_control = len(self.control)
        handler.restore(0, self.changelog if self.rules.restore else ())
        return handler

    @staticmethod
    def _follow(handler: MatcherHandler, entry: tuple[int, str, str, bytes | None]) -> None:
        _, kind, id, value = entry
        handler.followers[kind].apply(ACCOUNT, id, value)

    def _decide(self, to: int) -> list[Output | tuple[int, bytes, bytes]]:
        """The steps of a batch, in an order in which they may become visible."""
        for entry in self.control[self.seen_control :]:
            self._follow(self.handler, entry)
        self.seen_control = len(self.control)
        batch: list[Received] = list(self.events[self.committed : to])
        handled: Handled = self.handler.handle(batch, len(self.control))
        first: list[Output | tuple[int, bytes, bytes]] = list(handled.outputs)
        then: list[Output | tuple[int, bytes, bytes]] = [*handled.facts, *handled.changes]
        self.random.shuffle(first)
        self.random.shuffle(then)
        steps = first + then
        if not self.rules.facts_last:
            self.random.shuffle(steps)
        return steps

    def _do(self, step: Output | tuple[int, bytes, bytes]) -> None:
        if isinstance(step, tuple):
            self.changelog.append((step[1], step[2], self.now_ms))
        elif step.topic == "run-commands":
            self.runs.append(step)
        elif step.topic == "deliveries":
            self.deliveries.append(step)
        else:
            source = parse_source(header(step, record.SOURCE))  # type: ignore[arg-type]
            assert source is not None
            self.facts.append(decode(step.value, EventFact))
            self.fact_sources.append(source.offset)

    def _batch(self, to: int, *, calm: bool = False) -> None:
        steps = self._decide(to)
        chance = 0.0 if calm else self.random.random()
        if chance < 0.55:
            for step in steps:
                self._do(step)
            self.committed = to
            return
        done = self.random.randrange(len(steps) + 1)
        for step in steps[:done]:
            self._do(step)
        if not self.rules.commit_last and self.random.random() < 0.5:
            self.committed = to
        if chance >= 0.85:  # SIGSTOP: what it had in flight arrives when it wakes, its commit is refused
            self.zombies.append((self.now + self.random.randrange(1, 3 * WINDOW), steps[done:]))
        self.handler = self._life()

    def _wake(self, *, everyone: bool = False) -> None:
        for zombie in [z for z in self.zombies if everyone or z[0] <= self.now]:
            self.zombies.remove(zombie)
            for step in zombie[1]:
                self._do(step)

    # ── the world ──
    def _post(self) -> None:
        key = self.random.choice([None, "A", "B"])
        posted = Posted(identifier=IDENTIFIER, properties=Raw(b"{}"), unique_key=key)
        # The gateway took it a moment before the broker did, which may be the day before.
        event = make_event(posted, account=ACCOUNT, now_ms=self.now_ms - self.random.choice([0, 0, TICK_MS]))
        replay = None
        if self.events and self.random.random() < 0.05:
            replay = _id("rpl", len(self.events))
            event = msgspec.structs.replace(decode(self.random.choice(self.events).value, Event), replay=replay)
            key = event.unique_key
        output = to_output(event)
        self.events.append(Written(EVENTS, 0, len(self.events), self.now_ms, output.key, output.value, output.headers))
        self.keys.append((key, replay))

    def _change(self) -> None:
        id = self.random.choice(CHANGING)
        value = self.random.choice([None, _subscription(id, self.now_ms)])
        self.control.append((self.now, "subscription", id, value))

    def run(self) -> Counter[str]:
        """The schedule: a random part, then everything gets handled and every zombie wakes."""
        for _ in range(self.random.randrange(6, 14)):
            self.now += self.random.choice([1, 2, 5, WINDOW // 2, WINDOW + 5])
            if self.random.random() < 0.25:
                self._change()
            for _ in range(self.random.randrange(4)):
                self._post()
            self._wake()
            to = min(len(self.events), self.committed + self.random.randrange(1, 5))
            if to > self.committed:
                self._batch(to)
            for reader in (self.runs, self.deliveries):
                if self.random.random() < 0.5:
                    reader.read(dies=self.random.random() < 0.3)
        while self.committed < len(self.events):
            self.now += 1
            self._batch(min(len(self.events), self.committed + 3), calm=True)
        self._wake(everyone=True)
        for reader in (self.runs, self.deliveries):
            reader.read(dies=self.random.random() < 0.3)
            reader.read(dies=False)
        return self.faults()

    # ── what must hold ──
    def faults(self) -> Counter[str]:
        found: Counter[str] = Counter()
        started = {**self.runs.began, **self.deliveries.began}
        stale = self.runs.stale | self.deliveries.stale if self.rules.stale_facts else set()
        if any(len(owns) > 1 for owns in started.values()):
            found["a run or delivery began twice"] += 1
        matches = self._matches(started)
        named = {child for children in matches.values() for child in children}
        if set(started) - named:
            found["a run or delivery that its event does not name"] += 1
        if named - set(started) - stale:
            found["a fact names what never began"] += 1
        found.update(self._outcome_faults())
        found.update(self._match_faults(started, stale))
        return found

    def _matches(self, started: dict[str, set[int]]) -> dict[str, set[str]]:
        """What each event matched, as the projector has it."""
        matches: dict[str, set[str]] = {}
        for fact in self.facts:
            children = {run.id for run in fact.runs} | {delivery.id for delivery in fact.deliveries}
            if self.rules.union:
                matches.setdefault(fact.event, set()).update(children)
            elif fact.event not in matches:
                matches[fact.event] = children
        if self.rules.union:
            matches["queued"] = set(started)
        return matches

    def _originals(self) -> set[int]:
        """Independent of the handler: which records are no repeat of a uniqueKey."""
        originals: set[int] = set()
        last: dict[str, Written] = {}
        for at, (one, (key, replay)) in enumerate(zip(self.events, self.keys, strict=True)):
            before = last.get(key) if key is not None else None
            if replay is not None or before is None or self._is_over(before, one):
                originals.add(at)
                if key is not None and replay is None:
                    last[key] = one
        return originals

    @staticmethod
    def _is_over(before: Written, one: Written) -> bool:
        same_event = header(before, record.ID) == header(one, record.ID)
        return one.timestamp - before.timestamp >= limits.UNIQUE_KEY_WINDOW_MS and not same_event

    def _outcome_faults(self) -> Counter[str]:
        found: Counter[str] = Counter()
        originals = self._originals()
        outcomes: dict[int, set[str]] = defaultdict(set)
        for source, fact in zip(self.fact_sources, self.facts, strict=True):
            outcomes[source].add(fact.outcome)
        for at in range(len(self.events)):
            if not outcomes[at]:
                found["a record without an outcome"] += 1
            elif at in originals and "duplicate" in outcomes[at]:
                found["a first record taken for a repeat"] += 1
            elif at not in originals and outcomes[at] != {"duplicate"}:
                found["a repeat inside the window taken for a first record"] += 1
        return found

    def _match_faults(self, started: dict[str, set[int]], stale: set[str]) -> Counter[str]:
        """A subscription in force ever since the record came must have matched it; one that was not, must not."""
        found: Counter[str] = Counter()
        for at in self._originals():
            one = self.events[at]
            replay, event = self.keys[at][1] or "", header(one, record.ID)
            assert event is not None
            for id in (ALWAYS, *CHANGING):
                child = child_of(event.decode(), id, replay)
                began = child in started
                received_ms = decode(one.value, Event).received_at if replay else one.timestamp
                states = self._states_since(one.timestamp, id, received_ms=received_ms)
                if states == {True} and not began and child not in stale:
                    found["a match lost"] += 1
                if states == {False} and began and self._is_only_record(at):
                    found["a match with a subscription that was gone"] += 1
        return found

    def _is_only_record(self, at: int) -> bool:
        return sum(header(one, record.ID) == header(self.events[at], record.ID) for one in self.events) == 1

    def _states_since(self, at_ms: int, id: str, *, received_ms: int) -> set[bool]:
        """Whether it was in force for this record, at any moment since the record came. One of a replay reaches those
        that its event reached when it was received."""
        states: set[bool] = set()
        current = False
        for tick, _, changed, value in self.control:
            if changed != id:
                continue
            created_at = START_MS + tick * TICK_MS
            now = value is not None and received_ms >= created_at - limits.SUBSCRIPTION_REACH_BACK_MS
            if created_at > at_ms:
                states.add(current)
                states.add(now)
            current = now
        return states | {current}
