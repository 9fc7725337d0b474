"""The proof that nothing was lost, from the records alone: what `millrace verify` computes, without reading anything.

Each record on `events` has an outcome or lies before its reader; each child that a fact names has its record; each run
and each delivery has a terminal fact or a live place: before its reader, at work, or a timer that is still to come.
Whatever has none of these is unaccounted. There is no wait without a deadline: a step is a record before the executor,
which bounds each attempt, and a retry is a timer. A run that a flow holds back may wait without one, so it is alive for
as long as facts confirm it, daily.

Feed every record of `TOPICS`, in any order between partitions, then ask. The caller reads positions first, the ends of
facts after them and the other ends last (`verify`), so that what a position has passed has left its traces within the
ends. Not here: the numbers of rows in the read models, which `verify` compares.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from millrace_core import dead_letters, ids
from millrace_core.errors import Reject
from millrace_core.limits import FLOW_TOLD_EVERY_MS
from millrace_core.messages import (
    AdmissionCommand,
    AdmitRun,
    AskAdmission,
    CancelTimer,
    Delivery,
    DeliveryAttempted,
    DeliveryFact,
    Event,
    EventFact,
    RunCommand,
    RunEnded,
    RunFact,
    RunStarted,
    RunWaiting,
    SetTimer,
    StartRun,
    Step,
    StepCompleted,
    StepFailed,
    StepResult,
    StepSkipped,
    StepStarted,
    TimerCommand,
    decode,
)
from millrace_core.record import ACCOUNT, ID, SOURCE, Received, header, parse_source

Part = tuple[str, int]
Place = tuple[str, int, int]
"""Catalogue name of a topic, partition, offset."""

# A timer this long past its due time is late beyond any explanation but a loss.
TIMER_GRACE_MS = 60_000
NAMED_MAX = 20
# Another end may stand over these: a stale repeat says nothing, and a dead letter may be sent again.
WEAK_ENDS = frozenset({"stale", "dead_lettered"})
FACT_TOPICS = ("event-facts", "run-facts", "delivery-facts", "dead-letters", "dead-letters-tx")


@dataclass(frozen=True, slots=True)
class Span:
    """What is judged: events, runs and deliveries whose first record has a broker's time in it, the end left out."""

    from_ms: int | None = None
    to_ms: int | None = None

    def holds(self, ms: int) -> bool:
        return (self.from_ms is None or ms >= self.from_ms) and (self.to_ms is None or ms < self.to_ms)


ALWAYS = Span()


@dataclass(frozen=True, slots=True)
class _Alive:
    """A live place: what is counted, and where exactly."""

    state: str
    words: str


@dataclass(slots=True)
class _Run:
    first_ms: int
    asked: list[Place] = field(default_factory=list)
    started: int = 0
    outcomes: list[str] = field(default_factory=list)
    steps: dict[tuple[str, int], Place] = field(default_factory=dict)
    results: dict[tuple[str, int], Place] = field(default_factory=dict)
    held: RunWaiting | None = None


@dataclass(slots=True)
class _Delivery:
    first_ms: int
    asked: list[Place] = field(default_factory=list)
    attempts: set[int] = field(default_factory=set)
    outcomes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What was found. `named` holds the first of the unaccounted and of the duplicates, `live` the first of what is
    not over, in words."""

    events: int
    outcomes: Counter[str]
    matches: int
    runs: Counter[str]
    deliveries: Counter[str]
    unaccounted: int
    duplicates: int
    named: list[str]
    live: list[str]
    next_timer_ms: int | None

    @property
    def holds(self) -> bool:
        return self.unaccounted == 0 and self.duplicates == 0

    def lines(self) -> list[str]:
        """The report for a human, the verdict last."""
        timer = f", next timer {_iso(self.next_timer_ms)}" if self.next_timer_ms is not None else ""
        return [
            f"events      {self.events}: {_counted(self.outcomes)}",
            f"matches     {self.matches}",
            f"runs        {sum(self.runs.values())}: {_counted(self.runs)}",
            f"deliveries  {sum(self.deliveries.values())}: {_counted(self.deliveries)}{timer}",
            *self.live,
            *self.named,
            f"duplicates {self.duplicates}",
            f"unaccounted {self.unaccounted}",
        ]


class Accounting:
    """Takes records (of one account, if one is given), gives a report. Holds one small entry for each event, run and
    delivery."""

    def __init__(self, account: str | None = None) -> None:
        self._account = None if account is None else account.encode()
        self._events: dict[Place, tuple[str | None, int]] = {}
        self._decided: dict[Place, EventFact] = {}
        self._facts: list[tuple[EventFact, int]] = []
        self._runs: dict[str, _Run] = {}
        self._deliveries: dict[str, _Delivery] = {}
        self._timers: dict[str, tuple[str, int, Place] | None] = {}
        self._lettered_ids: set[str] = set()
        self._lettered: set[Place] = set()
        self._rows: dict[str, set[tuple[object, ...]]] = {}
        self._letter_ms: dict[tuple[object, ...], int] = {}
        self.unreadable = 0
        """Records that could not be parsed. Each must be a dead letter; those on `events` are checked."""

    def feed(self, record: Received, topic: str) -> None:
        """Take one record; `topic` is its catalogue name."""
        if self._account is not None and header(record, ACCOUNT) != self._account:
            return
        place = (topic, record.partition, record.offset)
        try:
            _FEEDERS[topic](self, record, place)
        except Reject:
            self.unreadable += 1
            if topic == "events":
                self._events[place] = None, record.timestamp

    # ── taking ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def _event(self, record: Received, place: Place) -> None:
        event = decode(record.value, Event)
        name = event.id
        if event.replay is None:
            self._row("events", event.id)
        else:  # the event's row is there: this record only has an outcome, and children of its own
            name = f"{event.id} of replay {event.replay}"
        self._events[place] = name, record.timestamp

    def _event_fact(self, record: Received, place: Place) -> None:
        fact = decode(record.value, EventFact)
        source = parse_source(header(record, SOURCE))
        if source is not None:
            self._decided.setdefault((_short(source.topic), source.partition, source.offset), fact)
            self._row("event_outcomes", fact.event, source.partition, source.offset)
        self._facts.append((fact, record.timestamp))
        for run in fact.runs:
            self._row("event_matches", fact.event, run.id)
        for delivery in fact.deliveries:
            self._row("event_matches", fact.event, delivery.id)

    def _run_command(self, record: Received, place: Place) -> None:
        command: RunCommand = decode(record.value, RunCommand)  # type: ignore[arg-type]
        if isinstance(command, StartRun):
            self._run(command.run, record).asked.append(place)
        elif isinstance(command, AdmitRun):
            self._run(command.run, record, is_row=False).asked.append(place)

    def _admission(self, record: Received, place: Place) -> None:
        command: AdmissionCommand = decode(record.value, AdmissionCommand)  # type: ignore[arg-type]
        if isinstance(command, AskAdmission):
            self._run(command.run, record, is_row=False).asked.append(place)

    def _run_fact(self, record: Received, place: Place) -> None:
        fact: RunFact = decode(record.value, RunFact)  # type: ignore[arg-type]
        run = self._run(fact.run, record)
        if isinstance(fact, RunStarted):
            run.started += 1
        elif isinstance(fact, RunEnded):
            run.outcomes.append(fact.outcome)
        elif isinstance(fact, RunWaiting):
            run.held = fact
        elif isinstance(fact, StepSkipped):
            self._row("steps", fact.run, fact.node)
        elif isinstance(fact, StepStarted | StepCompleted | StepFailed):
            self._row("steps", fact.run, fact.node)
            self._row("step_attempts", fact.run, fact.node, fact.attempt)

    def _step(self, record: Received, place: Place) -> None:
        step = decode(record.value, Step)
        self._run(step.run, record, is_row=False).steps[step.node, step.attempt] = place

    def _step_result(self, record: Received, place: Place) -> None:
        result = decode(record.value, StepResult)
        self._run(result.run, record, is_row=False).results[result.node, result.attempt] = place

    def _delivery_asked(self, record: Received, place: Place) -> None:
        self._delivery(decode(record.value, Delivery).id, record).asked.append(place)

    def _delivery_fact(self, record: Received, place: Place) -> None:
        fact: DeliveryFact = decode(record.value, DeliveryFact)  # type: ignore[arg-type]
        delivery = self._delivery(fact.delivery, record)
        if isinstance(fact, DeliveryAttempted):
            delivery.attempts.add(fact.attempt)
            self._row("delivery_attempts", fact.delivery, fact.attempt)
        if fact.outcome != "retrying":
            delivery.outcomes.append(fact.outcome)

    def _timer(self, record: Received, place: Place) -> None:
        timer: TimerCommand = decode(record.value, TimerCommand)  # type: ignore[arg-type]
        if isinstance(timer, CancelTimer):
            self._timers[timer.id] = None
        elif not _is_time_limit(timer):
            self._timers.setdefault(timer.id, (timer.owner, timer.due, place))

    def _letter(self, record: Received, place: Place) -> None:
        topic = header(record, dead_letters.TOPIC) or b""
        partition, offset = header(record, dead_letters.PARTITION) or b"", header(record, dead_letters.OFFSET) or b""
        if partition.isdigit() and offset.isdigit():
            self._lettered.add((_short(topic.decode("utf-8", "replace")), int(partition), int(offset)))
        if (id := header(record, ID)) is not None:
            self._lettered_ids.add(id.decode("utf-8", "replace"))
        self._row("dead_letters", *place)
        self._letter_ms[place] = record.timestamp

    def _run(self, id: str, record: Received, *, is_row: bool = True) -> _Run:
        if is_row:
            self._row("runs", id)
        run = self._runs.setdefault(id, _Run(record.timestamp))
        run.first_ms = min(run.first_ms, record.timestamp)
        return run

    def _delivery(self, id: str, record: Received) -> _Delivery:
        self._row("deliveries", id)
        delivery = self._deliveries.setdefault(id, _Delivery(record.timestamp))
        delivery.first_ms = min(delivery.first_ms, record.timestamp)
        return delivery

    def _row(self, table: str, *key: object) -> None:
        self._rows.setdefault(table, set()).add(key)

    # ── judging ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def rows(self, dropped: frozenset[int] = frozenset()) -> dict[str, int]:
        """How many rows the records fed so far should have become, by table, but for those of days (since 1970) that
        were dropped."""
        if not dropped:
            return {table: len(keys) for table, keys in self._rows.items()}
        return {
            table: sum(self._day_of(table, key) not in dropped for key in keys) for table, keys in self._rows.items()
        }

    def _day_of(self, table: str, key: tuple[object, ...]) -> int:
        if table == "dead_letters":
            return self._letter_ms[key] // ids.DAY_MS
        try:
            return ids.time_ms_of(str(key[0])) // ids.DAY_MS
        except Reject:  # a row of it never was
            return -1

    def report(
        self,
        positions: Mapping[Part, int],
        *,
        now_ms: int,
        begins_ms: Mapping[str, int] | None = None,
        span: Span = ALWAYS,
    ) -> Report:
        """The proof. `positions` are the committed ones of each topic's one group; `begins_ms` the times at which
        topics begin whose earlier records are deleted: children from before are not looked for."""
        return _Judgement(self, positions, now_ms, begins_ms or {}, span).report()


class _Judgement:
    """One report in the making."""

    def __init__(
        self,
        book: Accounting,
        positions: Mapping[Part, int],
        now_ms: int,
        begins_ms: Mapping[str, int],
        span: Span,
    ) -> None:
        self._book = book
        self._positions = positions
        self._now_ms = now_ms
        self._begins_ms = begins_ms
        self._span = span
        self._unaccounted = 0
        self._duplicates = 0
        self._named: list[str] = []
        self._live: list[str] = []
        self._timers: dict[str, int] = {}
        for timer in book._timers.values():
            if timer is None:
                continue
            owner, due, place = timer
            if due + TIMER_GRACE_MS >= now_ms or self._is_ahead(place):
                self._timers[owner] = max(due, self._timers.get(owner, 0))

    def report(self) -> Report:
        outcomes, matches = self._events(), self._matches()
        runs, deliveries = self._runs(), self._deliveries()
        return Report(
            events=sum(outcomes.values()),
            outcomes=outcomes,
            matches=matches,
            runs=runs,
            deliveries=deliveries,
            unaccounted=self._unaccounted,
            duplicates=self._duplicates,
            named=self._named,
            live=self._live,
            next_timer_ms=min(self._timers.values(), default=None),
        )

    def _events(self) -> Counter[str]:
        found: Counter[str] = Counter()
        book = self._book
        decided: dict[str, Place] = {}
        for place, (id, at_ms) in book._events.items():
            if not self._span.holds(at_ms):
                continue
            fact = book._decided.get(place)
            if fact is not None:
                found[fact.outcome] += 1
                if fact.outcome in ("matched", "unmatched"):
                    name = id or fact.event
                    if name in decided:
                        self._duplicate(f"event {name} was decided at {_at(place)} and {_at(decided[name])}")
                    decided[name] = place
            elif place in book._lettered:
                found["dead letter"] += 1
            elif self._is_ahead(place):
                found["waiting for the matcher"] += 1
                self._lives(f"event {id or 'unreadable'} is {self._behind(place)}")
            else:
                found["unaccounted"] += 1
                self._lost(f"event {id or 'unreadable'} at {_at(place)} has no outcome")
        return found

    def _matches(self) -> int:
        book, named = self._book, set()
        for fact, at_ms in book._facts:
            if not self._span.holds(at_ms):
                continue
            for run in fact.runs:
                named.add(run.id)
                if run.id not in book._runs and not self._is_excused(run.id, "run-commands"):
                    self._lost(f"run {run.id} of event {fact.event} was never asked for")
            for delivery in fact.deliveries:
                named.add(delivery.id)
                if delivery.id not in book._deliveries and not self._is_excused(delivery.id, "deliveries"):
                    self._lost(f"delivery {delivery.id} of event {fact.event} was never asked for")
        return len(named)

    def _runs(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for id, run in self._book._runs.items():
            if not self._span.holds(run.first_ms):
                continue
            ends = [outcome for outcome in run.outcomes if outcome not in WEAK_ENDS]
            if len(ends) > 1 or run.started > 1:
                self._duplicate(f"run {id} began {run.started} times and ended {len(ends)} times")
            over = next(iter(ends or run.outcomes), None)
            if over is not None:
                found[over] += 1
            elif (alive := self._live_run(id, run)) is not None:
                found[alive.state] += 1
                self._lives(f"run {id} is {alive.words}")
            elif not self._is_excused(id, "run-commands"):
                self._lost(f"run {id} neither ended nor goes on")
        return found

    def _live_run(self, id: str, run: _Run) -> _Alive | None:
        if (place := self._first_ahead(run.asked)) is not None:
            return _Alive("waiting for the orchestrator", self._behind(place))
        if run.held is not None and not run.started:
            return self._held(run.held)
        waiting = [place for attempt, place in run.steps.items() if attempt not in run.results]
        if (place := self._first_ahead(waiting)) is not None:
            return _Alive("in the executor's lane", self._behind(place))
        if (place := self._first_ahead(run.results.values())) is not None:
            return _Alive("result waiting for the orchestrator", self._behind(place))
        return self._timed(id)

    def _deliveries(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for id, delivery in self._book._deliveries.items():
            if not self._span.holds(delivery.first_ms):
                continue
            ends = [outcome for outcome in delivery.outcomes if outcome not in WEAK_ENDS]
            over = next(iter(ends or delivery.outcomes), None)
            if over is not None:
                found[over] += 1
            elif (alive := self._live_delivery(id, delivery)) is not None:
                found[alive.state] += 1
                self._lives(f"delivery {id} is {alive.words}")
            elif not self._is_excused(id, "deliveries"):
                self._lost(f"delivery {id} neither ended nor goes on")
        return found

    def _held(self, told: RunWaiting) -> _Alive | None:
        """Held back by a flow, as far as that was confirmed: daily, and a day is given to one that was down."""
        if max(told.at + 2 * FLOW_TOLD_EVERY_MS, told.until or 0) + TIMER_GRACE_MS < self._now_ms:
            return None
        until = "" if told.until is None else f" until {_iso(told.until)}"
        return _Alive(
            "held back by a flow", f"held back by {told.subscription}, key {told.key!r}: {told.reason}{until}"
        )

    def _live_delivery(self, id: str, delivery: _Delivery) -> _Alive | None:
        if (place := self._first_ahead(delivery.asked)) is not None:
            return _Alive("in the dispatcher's lane", self._behind(place))
        return self._timed(id)

    def _timed(self, owner: str) -> _Alive | None:
        due = self._timers.get(owner)
        return None if due is None else _Alive("waiting for a timer", f"waiting for timer until {_iso(due)}")

    def _first_ahead(self, places: Iterable[Place]) -> Place | None:
        return next((place for place in places if self._is_ahead(place)), None)

    def _behind(self, place: Place) -> str:
        """The lane in words. Offsets are not dense, so the number before it is the most there can be."""
        before = place[2] - self._positions.get(place[:2], 0)
        return f"in lane {place[0]}/{place[1]} " + (f"behind up to {before} records" if before else "first in line")

    def _is_ahead(self, place: Place) -> bool:
        """Whether its reader has not passed it."""
        return place[2] >= self._positions.get(place[:2], 0)

    def _is_excused(self, id: str, topic: str) -> bool:
        """A dead letter tells of it, or its records may be older than the log."""
        if id in self._book._lettered_ids:
            return True
        begins = self._begins_ms.get(topic)
        return begins is not None and ids.time_ms_of(id) < begins

    def _lost(self, what: str) -> None:
        self._unaccounted += 1
        self._name(f"unaccounted: {what}")

    def _duplicate(self, what: str) -> None:
        self._duplicates += 1
        self._name(f"duplicate: {what}")

    def _lives(self, what: str) -> None:
        if len(self._live) < NAMED_MAX:
            self._live.append(f"waits: {what}")

    def _name(self, what: str) -> None:
        if len(self._named) < NAMED_MAX:
            self._named.append(what)


def _is_time_limit(timer: SetTimer) -> bool:
    """Whether it only bounds a run's time: that one waits for it does not show that its work goes on."""
    return timer.topic == "run-commands-tx" and b'"purpose":"timeout"' in bytes(timer.record)


def _short(topic: str) -> str:
    return topic.removesuffix(".v1").rpartition(".")[2]


def _at(place: Place) -> str:
    return f"{place[0]}/{place[1]}@{place[2]}"


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"


_FEEDERS: Mapping[str, Callable[[Accounting, Received, Place], None]] = MappingProxyType(
    {
        "events": Accounting._event,
        "event-facts": Accounting._event_fact,
        "run-commands": Accounting._run_command,
        "run-commands-tx": Accounting._run_command,
        "admissions": Accounting._admission,
        "steps": Accounting._step,
        "step-results": Accounting._step_result,
        "run-facts": Accounting._run_fact,
        "deliveries": Accounting._delivery_asked,
        "deliveries-tx": Accounting._delivery_asked,
        "deliveries-overflow": Accounting._delivery_asked,
        "delivery-facts": Accounting._delivery_fact,
        "timers": Accounting._timer,
        "timers-tx": Accounting._timer,
        "dead-letters": Accounting._letter,
        "dead-letters-tx": Accounting._letter,
    }
)

TOPICS = tuple(_FEEDERS)
