"""The whole way from an event to its ends, in one thread of virtual time: matcher, orchestrator, scheduler and lanes.

The real handlers decide (`MatcherHandler`, `OrchestratorHandler`, `SchedulerHandler`, `Dispatcher` with its claims,
`LaneQueues`, `Progress`); only the log, the processors' order of steps, executors and receivers are modelled. A seed
says who moves next, how far, who dies between which two steps, and which frozen matcher's sends arrive when it wakes;
partitions run ahead of one another as they like. Each rule a processor must keep can be broken (`Planted`), and must
then be seen. Not here: brokers, rebalances (tests/fault), changes of control (`matcher_model`).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol
from zlib import crc32

import msgspec

from millrace_core import egress, ids
from millrace_core.clock import ManualClock
from millrace_core.event import Posted, make_event, to_output
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryFact,
    EventFact,
    PlanControl,
    Raw,
    RunEnded,
    RunFact,
    RunStarted,
    Step,
    StepStarted,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_core.plans import RetryPolicy
from millrace_core.record import ACCOUNT, ID, Output, Received, Source, Written, header
from millrace_core.seen import SourceWindow
from millrace_dispatcher.claims import Claims
from millrace_dispatcher.endpoints import Endpoints
from millrace_dispatcher.pausing import Pausing
from millrace_dispatcher.rates import Rates
from millrace_dispatcher.shares import Shares
from millrace_dispatcher.worker import Dispatcher
from millrace_kafka.lane_queues import Job, Lane, LaneQueues
from millrace_kafka.progress import Progress
from millrace_kafka.progress import decode as decode_mark
from millrace_kafka.progress import encode as encode_mark
from millrace_kafka.topics import full_name, partition_of
from millrace_matcher.handlers import MatcherHandler
from millrace_matcher.outputs import Origin
from millrace_orchestrator import handlers as orchestrator
from millrace_runtime.egress import Answer
from millrace_scheduler import handlers as scheduler
from tests.support import plans
from tests.support.dispatching import RING, Meter, endpoint_control
from tests.support.run_worlds import answer
from tests.support.task import Overlay, Task

PARTITIONS = 2
START_MS = 20_000 * ids.DAY_MS
ACCOUNT_ID = plans.ACCOUNT
IDENTIFIER = "e:custom/tick"
PLAN, ENDPOINT = f"job_{1:032x}", f"we_{1:032x}"
RUN_SUB, DELIVERY_SUB = f"sub_{1:032x}", f"sub_{2:032x}"
NODES = ("first", "second")
STEP_ATTEMPTS = 3
SCHEDULE_S = (1.0, 2.0)
FAILING_IN_TEN = 3
MOVES_MAX = 20_000


@dataclass(frozen=True)
class Planted:
    """Faults put in, one at a time."""

    commit_before_produce: bool = False
    ack_before_handling: bool = False
    random_ids: bool = False
    state_before_commit: bool = False
    dedupe_outside: bool = False


class Log:
    """Every topic, with its partitions, on the broker's time."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._records: dict[tuple[str, int], list[Written]] = defaultdict(list)

    def append(self, output: Output) -> None:
        partition = partition_of(output.route or output.key or b"", PARTITIONS)
        at = self.of(output.topic, partition)
        topic = full_name(output.topic)
        at.append(
            Written(topic, partition, len(at), self._clock.now_ms(), output.key, output.value, tuple(output.headers))
        )

    def of(self, topic: str, partition: int) -> list[Written]:
        return self._records[topic, partition]

    def all(self, topic: str) -> Iterator[Written]:
        for partition in range(PARTITIONS):
            yield from self.of(topic, partition)


class Actor(Protocol):
    """Someone who moves the world on."""

    def move(self, chance: Random, *, dies: bool) -> bool:
        """One step, in which it may die. False when there is nothing to do."""
        ...


# ── the matcher ─────────────────────────────────────────────────────────────────────────────────────────────────────
class RandomIds(MatcherHandler):
    """Planted: every time an event is handled its children have other ids."""

    times = 0

    def _children(self, origin: Origin) -> Any:
        RandomIds.times += 1
        event = msgspec.structs.replace(origin.event, replay=f"rpl_{RandomIds.times}")
        return super()._children(msgspec.structs.replace(origin, event=event))


class Matcher:
    """One partition of `events`, at least once: outputs, then facts and changelog, then the commit."""

    def __init__(self, log: Log, partition: int, planted: Planted) -> None:
        self._log, self._partition, self._planted = log, partition, planted
        self._committed = 0
        self._changelog: list[tuple[bytes, bytes, int]] = []
        self._late: list[Output] = []
        self._begin()

    def _begin(self) -> None:
        self._handler = RandomIds() if self._planted.random_ids else MatcherHandler()
        for kind, id, value in controls():
            self._handler.followers[kind].apply(ACCOUNT_ID, id, value)
        self._handler.restore(self._partition, self._changelog)

    def move(self, chance: Random, *, dies: bool) -> bool:
        if self._late and chance.random() < 0.3:
            self._log.append(self._late.pop(0))
            return True
        records = self._log.of("events", self._partition)[self._committed :][: chance.randint(1, 3)]
        if not records:
            return self.wake()
        handled = self._handler.handle(records, 0)
        first: list[Output | tuple[bytes, bytes]] = list(handled.outputs)
        then: list[Output | tuple[bytes, bytes]] = [
            *handled.facts,
            *((key, value) for _, key, value in handled.changes),
        ]
        chance.shuffle(first)
        chance.shuffle(then)
        steps = first + then
        done = chance.randint(0, len(steps)) if dies else len(steps)
        for step in steps[:done]:
            self._do(step)
        if not dies or self._planted.commit_before_produce:
            self._committed += len(records)
        if dies:
            if chance.random() < 0.5:  # it was frozen: what it had in flight arrives when it wakes
                self._late += [step for step in steps[done:] if isinstance(step, Output)]
            if self._planted.commit_before_produce:
                self._late.clear()
            self._begin()
        return True

    def wake(self) -> bool:
        """Let everything that was in flight arrive."""
        had = bool(self._late)
        while self._late:
            self._log.append(self._late.pop(0))
        return had

    def _do(self, step: Output | tuple[bytes, bytes]) -> None:
        if isinstance(step, Output):
            self._log.append(step)
        else:
            self._changelog.append((*step, 0))


def controls() -> list[tuple[str, str, bytes]]:
    """What is in force: a job of two steps and a webhook, both for every event."""
    policy = RetryPolicy(attempts=STEP_ATTEMPTS, initial_s=1.0, max_s=2.0)
    plan = plans.chain(*(plans.node(name, retry=policy) for name in NODES))

    def subscription(kind: Any, target: str) -> bytes:
        control = SubscriptionControl(
            account=ACCOUNT_ID, pattern=IDENTIFIER, target_kind=kind, target_id=target, created_at=0
        )
        return encode(control)

    return [
        ("plan", PLAN, encode(PlanControl(account=ACCOUNT_ID, plan=Raw(plan)))),
        ("endpoint", ENDPOINT, endpoint()),
        ("subscription", RUN_SUB, subscription("plan", PLAN)),
        ("subscription", DELIVERY_SUB, subscription("endpoint", ENDPOINT)),
    ]


def endpoint() -> bytes:
    return endpoint_control("http://127.0.0.1/hook", id=ENDPOINT, account=ACCOUNT_ID, retry_schedule_s=SCHEDULE_S)


# ── orchestrator and scheduler ──────────────────────────────────────────────────────────────────────────────────────
class EarlyState(Task):
    """Planted: the state takes a transaction's changes before it is known to stand."""

    def _end(self, overlay: Overlay, outputs: list[Output], records: Sequence[Written], crash: bool) -> list[Output]:
        if crash:
            overlay.apply()
        return super()._end(overlay, outputs, records, crash)


class EarlyMemory(Task):
    """Planted: what was had is remembered outside the transaction that has it."""

    def _end(self, overlay: Overlay, outputs: list[Output], records: Sequence[Written], crash: bool) -> list[Output]:
        if crash:
            self.log += records
        return super()._end(overlay, outputs, records, crash)


class ClaimlessWindow(SourceWindow):
    """An id that is known is a repeat, whichever record brought it."""

    def check(self, source: Source, id: str, own_offset: int) -> Any:
        return super().check(source, id, -1)


class Transactional:
    """One partition of a transactional processor's inputs. A batch takes effect whole or not at all."""

    def __init__(self, log: Log, clock: ManualClock, partition: int, task: Task, inputs: Sequence[str]) -> None:
        self._log, self._clock, self._partition, self.task = log, clock, partition, task
        self._positions = dict.fromkeys(inputs, 0)

    def move(self, chance: Random, *, dies: bool) -> bool:
        if self._is_due():
            self._write(self.task.wake(self._clock.now_ms(), limit=chance.randint(1, 3), crash=dies))
            return True
        batch: list[Written] = []
        positions = dict(self._positions)
        for _ in range(chance.randint(1, 4)):
            waiting = [topic for topic, at in positions.items() if at < len(self._log.of(topic, self._partition))]
            if not waiting:
                break
            topic = chance.choice(waiting)
            batch.append(self._log.of(topic, self._partition)[positions[topic]])
            positions[topic] += 1
        if not batch:
            return False
        self._write(self.task.feed(*batch, crash=dies))
        if not dies:
            self._positions = positions
        return True

    def due_ms(self) -> int | None:
        """When a timer of this partition is due."""
        has_timers = any(key.startswith(b"timer/") for key in self.task.state)
        return self.task.handler.next_due_ms() if has_timers else None

    def _is_due(self) -> bool:
        due_ms = self.task.handler.next_due_ms()
        return due_ms is not None and due_ms <= self._clock.now_ms()

    def _write(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._log.append(output)


# ── lanes ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class Work(Protocol):
    """What is done in lanes. Made anew with each life; `recall`, `see` as `millrace_kafka.lanes.Memory`."""

    def recall(self, record: Written) -> None: ...
    def see(self, record: Written) -> None: ...
    def lane(self, record: Written) -> Lane: ...
    def do(self, record: Written) -> Sequence[Output]: ...


class Lanes:
    """One process with all partitions of its topics: read, begun in fair turns, finished in any order."""

    def __init__(self, log: Log, topics: Sequence[str], work: Callable[[], Work], planted: Planted) -> None:
        self._log, self._make, self._planted = log, work, planted
        self._committed = {(topic, n): (0, "") for topic in topics for n in range(PARTITIONS)}
        self._begin()

    def _begin(self) -> None:
        self._work = self._make()
        self._queues: LaneQueues[tuple[tuple[str, int], Written]] = LaneQueues()
        self._running: list[Job[tuple[tuple[str, int], Written]]] = []
        self._progress: dict[tuple[str, int], Progress] = {}
        for part, (position, metadata) in self._committed.items():
            self._progress[part] = Progress(position, decode_mark(position, metadata))
            for record in self._log.of(*part)[:position]:
                self._work.recall(record)

    def move(self, chance: Random, *, dies: bool) -> bool:
        if not self._has_work():
            return False
        self._read(chance)
        while chance.random() < 0.8 and (job := self._queues.begin()) is not None:
            self._running.append(job)
        if dies:
            self._die(chance)
            return True
        if self._running:
            self._finish(self._running.pop(chance.randrange(len(self._running))))
        if chance.random() < 0.5:
            self._commit()
        return True

    def _has_work(self) -> bool:
        return any(len(each) or each.next < len(self._log.of(*part)) for part, each in self._progress.items())

    def _die(self, chance: Random) -> None:
        for job in self._running:  # the effect may have been had, and some of the outputs acked
            if chance.random() < 0.5:
                outputs = list(self._work.do(job.what[1]))
                chance.shuffle(outputs)
                self._write(outputs[: chance.randint(0, len(outputs))])
        self._begin()

    def _read(self, chance: Random) -> None:
        for part, progress in self._progress.items():
            for record in self._log.of(*part)[progress.next :][: chance.randint(0, 3)]:
                self._work.see(record)
                if progress.taken(record.offset):
                    self._queues.add(self._work.lane(record), (part, record))
                    if self._planted.ack_before_handling:
                        progress.finished(record.offset)
                        self._commit()

    def _finish(self, job: Job[tuple[tuple[str, int], Written]]) -> None:
        part, record = job.what
        self._write(self._work.do(record))
        self._queues.over(job)
        self._progress[part].finished(record.offset)

    def _commit(self) -> None:
        for part, progress in self._progress.items():
            at = progress.position
            self._committed[part] = (at, encode_mark(at, progress.mark(is_clean=False)))

    def _write(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self._log.append(output)


class Executing:
    """An executor whose attempts come out the same each time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def recall(self, record: Written) -> None: ...
    def see(self, record: Written) -> None: ...

    def lane(self, record: Written) -> Lane:
        return Lane((header(record, ACCOUNT) or b"").decode())

    def do(self, record: Written) -> Sequence[Output]:
        result = answer(decode(record.value, Step), seed=self._seed, failures=FAILING_IN_TEN)
        headers = ((ACCOUNT, result.account.encode()), (ID, result.run.encode()))
        return [Output("step-results", result.run.encode(), encode(result), headers)]


class Receiver:
    """A `Sender` whose answers depend on the message alone."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def send(self, target: egress.Target, *, account: str, head: bytes, body: bytes, timeout_s: float) -> Answer:
        self._world.sent += 1
        return Answer(500 if crc32(body + b"%d" % self._world.attempt) % 10 < FAILING_IN_TEN else 200)


class Dispatching:
    """The real dispatcher, one attempt at a time."""

    def __init__(self, world: "World") -> None:
        endpoints = Endpoints(RING, user_agent="simulated", allow=egress.networks("127.0.0.0/8"))
        endpoints.apply(ACCOUNT_ID, ENDPOINT, endpoint())
        self._world = world
        self._real = Dispatcher(
            endpoints=endpoints,
            pausing=Pausing(),
            claims=Claims(),
            shares=Shares(),
            rates=Rates(),
            sender=Receiver(world),
            clock=world.clock,
            meter=Meter(),
        )
        for topic in DELIVERIES:
            for partition in range(PARTITIONS):
                self._real.begin(full_name(topic), partition)

    def recall(self, record: Written) -> None:
        if record.topic != full_name("deliveries-tx"):
            self._real.recall(record)

    def see(self, record: Written) -> None:
        self._real.see(record)

    def lane(self, record: Written) -> Lane:
        return self._real.lane(record)

    def do(self, record: Written) -> Sequence[Output]:
        self._world.attempt = decode(record.value, Delivery).attempt
        return at_once(self._real.work(record))


class Watching:
    """Someone who wants an account's events of one ordering key one after the other: what an ordered lane is for."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._under_way: set[bytes] = set()

    def recall(self, record: Written) -> None: ...
    def see(self, record: Written) -> None: ...

    def lane(self, record: Written) -> Lane:
        return Lane(ACCOUNT_ID, key=_ordering_key(record), ordered=True)

    def do(self, record: Written) -> Sequence[Output]:
        self._world.watched[record.partition, _ordering_key(record)].append(record.offset)
        return ()


def _ordering_key(record: Received) -> str:
    return str(msgspec.json.decode(record.value or b"").get("ordering_key"))


def at_once(work: Coroutine[Any, Any, Sequence[Output]]) -> Sequence[Output]:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        outputs: Sequence[Output] = done.value
        return outputs
    raise AssertionError("it waited")


# ── the world ───────────────────────────────────────────────────────────────────────────────────────────────────────
DELIVERIES = ("deliveries", "deliveries-tx", "deliveries-overflow")


@dataclass
class World:
    """One seed's course. `run` plays it to its end, `faults` says what came out wrong."""

    seed: int
    planted: Planted = field(default_factory=Planted)

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.clock = ManualClock(START_MS)
        self.log = Log(self.clock)
        self.sent = self.attempt = self.posted = 0
        self.watched: dict[tuple[int, str], list[int]] = defaultdict(list)
        planted = self.planted
        kind = EarlyState if planted.state_before_commit else EarlyMemory if planted.dedupe_outside else Task
        window = ClaimlessWindow if planted.dedupe_outside else SourceWindow

        def tasks(module: Any, make: Callable[[], Any]) -> list[Transactional]:
            read_back = [full_name(topic) for topic in module.READ_BACK]
            return [
                Transactional(self.log, self.clock, n, kind(make, read_back), module.INPUTS) for n in range(PARTITIONS)
            ]

        self.matchers = [Matcher(self.log, n, planted) for n in range(PARTITIONS)]
        self.orchestrators = tasks(orchestrator, lambda: orchestrator.OrchestratorHandler(window=window()))
        self.schedulers = tasks(scheduler, lambda: scheduler.SchedulerHandler(window=window()))
        lanes = [
            Lanes(self.log, ("steps",), lambda: Executing(self.seed), planted),
            Lanes(self.log, DELIVERIES, lambda: Dispatching(self), planted),
            Lanes(self.log, ("events",), lambda: Watching(self), planted),
        ]
        self.actors: list[Actor] = [*self.matchers, *self.orchestrators, *self.schedulers, *lanes]

    def run(self) -> Counter[str]:
        """Chaos for a while, then calm until nothing moves and no timer waits."""
        for _ in range(self.chance.randrange(20, 120)):
            self.clock.advance(self.chance.choice((0.0, 0.001, 0.2, 1.5)))
            if self.chance.random() < 0.15:
                self._post()
            self.chance.choice(self.actors).move(self.chance, dies=self.chance.random() < 0.2)
        for _ in range(MOVES_MAX):
            self.clock.advance(0.001)
            moves = [actor.move(self.chance, dies=False) for actor in self.actors]
            if not any(moves) and not self._wait():
                return self.faults()
        return Counter({"no end": 1})

    def _wait(self) -> bool:
        """Let time pass to the next timer. False when there is none."""
        due = [at for each in self.schedulers if (at := each.due_ms()) is not None]
        if not due:
            return False
        self.clock.advance(max(0, min(due) - self.clock.now_ms()) / 1000 + 0.001)
        return True

    def _post(self) -> None:
        posted = Posted(
            identifier=IDENTIFIER,
            properties=Raw(b'{"n":%d}' % self.chance.randrange(1_000)),
            unique_key=self.chance.choice((None, "A", "B")),
            ordering_key=self.chance.choice(("a", "b", "d")),
        )
        event = make_event(posted, account=ACCOUNT_ID, now_ms=self.clock.now_ms())
        if posted.unique_key is None:  # else its id is random, and no seed would play again
            self.posted += 1
            id = ids.derived_id(ids.EVENT, self.clock.now_ms(), "simulated", str(self.posted))
            event = msgspec.structs.replace(event, id=id)
        for _ in range(self.chance.choice((1, 1, 2))):  # whoever got no answer posts again
            self.log.append(to_output(event))

    # ── what must hold ──
    def faults(self) -> Counter[str]:
        found: Counter[str] = Counter()
        events = {(header(one, ID) or b"").decode() for one in self.log.all("events")}
        originals = self._originals()
        found.update(self._run_faults({ids.run_id_of(event, RUN_SUB) for event in originals}))
        found.update(self._delivery_faults({ids.delivery_id_of(event, ENDPOINT) for event in originals}))
        decided = {decode(one.value, EventFact).event for one in self.log.all("event-facts")}
        if decided != events:
            found["an event without an outcome"] += 1
        for topic in ("dead-letters", "dead-letters-tx"):
            if any(True for _ in self.log.all(topic)):
                found["a record was parked"] += 1
        fired = Counter(one.value for topic in ("run-commands-tx", "deliveries-tx") for one in self.log.all(topic))
        if max(fired.values(), default=1) > 1:
            found["a timer fired twice"] += 1
        for offsets in self.watched.values():
            first = list(dict.fromkeys(offsets))
            if first != sorted(first):
                found["an ordered lane out of order"] += 1
        if any(key.startswith((b"run/", b"timer/")) for each in self._tasks() for key in each.task.state):
            found["a state that nobody ends"] += 1
        return found

    def _tasks(self) -> list[Transactional]:
        return [*self.orchestrators, *self.schedulers]

    def _originals(self) -> set[str]:
        """The events that must come to something: those with a uniqueKey had before, on their partition, do not."""
        originals: dict[str, None] = {}
        taken: set[tuple[int, str, str]] = set()
        for one in self.log.all("events"):
            members = msgspec.json.decode(one.value or b"")
            if key := members.get("unique_key"):
                place = (one.partition, members["ordering_key"], key)
                if place in taken:
                    continue
                taken.add(place)
            originals[members["id"]] = None
        return set(originals)

    def _run_faults(self, expected: set[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        facts: dict[str, list[Any]] = defaultdict(list)
        for one in self.log.all("run-facts"):
            fact: Any = decode(one.value, RunFact)  # type: ignore[arg-type]
            facts[fact.run].append(fact)
        if lost := expected - facts.keys():
            found["a run lost"] += len(lost)
        if more := facts.keys() - expected:
            found["a run that nobody asked for"] += len(more)
        for own in facts.values():
            if [isinstance(fact, RunStarted) for fact in own] != [True] + [False] * (len(own) - 1):
                found["a run did not start once, first"] += 1
            if [isinstance(fact, RunEnded) for fact in own] != [False] * (len(own) - 1) + [True]:
                found["a run did not end once, last"] += 1
            for node in NODES:
                begun = [fact.attempt for fact in own if isinstance(fact, StepStarted) and fact.node == node]
                if begun != list(range(1, len(begun) + 1)) or len(begun) > STEP_ATTEMPTS:
                    found["attempts of a step that do not count up"] += 1
        asked = Counter(decode(one.value, Step).key for one in self.log.all("steps"))
        if max(asked.values(), default=1) > 1:
            found["an attempt of a step asked for twice"] += 1
        return found

    def _delivery_faults(self, expected: set[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        outcomes: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for one in self.log.all("delivery-facts"):
            fact: Any = decode(one.value, DeliveryFact)  # type: ignore[arg-type]
            if not isinstance(fact, DeliveryAttempted):
                found[f"a delivery that ended {fact.outcome}"] += 1
                continue
            outcomes[fact.delivery][fact.attempt].add(fact.outcome)
        if lost := expected - outcomes.keys():
            found["a delivery lost"] += len(lost)
        if more := outcomes.keys() - expected:
            found["a delivery that nobody asked for"] += len(more)
        for attempts in outcomes.values():
            if sorted(attempts) != list(range(1, len(attempts) + 1)):
                found["attempts of a delivery that do not count up"] += 1
            last = attempts[max(attempts)]
            if not last & {"succeeded", "failed"}:
                found["a delivery that never ended"] += 1
            if any(each & {"succeeded", "failed"} for n, each in attempts.items() if n < max(attempts)):
                found["an attempt after the last"] += 1
        return found
