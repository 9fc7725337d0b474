"""What is done to a running Millrace. A new nemesis is a stage of a few lines and a row in `NEMESES`.

A stage prepares its victim (a twin, a proxy, a disk), yields the strike, and undoes the preparation. The strike runs
under load and returns when the damage is over; from then on the recovery is counted. `chance` is seeded.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

import aiohttp
import orjson

from millrace_core import ids, limits, plans
from millrace_core.clock import SystemClock
from millrace_core.messages import PlanControl, Raw, SubscriptionControl, encode
from millrace_kafka.control_log import ControlWriter
from millrace_web import positions
from tests.fault import scenario
from tests.fault.arena import PARTITIONS, Arena, Changed
from tests.fault.test_garbage import spoil
from tests.support.own_disk import Disk, own_disk
from tests.support.platform import SERVICES
from tests.support.replicas import alone_on
from tests.support.tcp_proxy import TcpProxy
from tests.support.topic_configs import stricter
from tests.support.user import PUBLISH, User, written
from tests.support.waiting import eventually

HOUR_MS = 3_600_000
SILENT_S = 12.0  # two sessions
STATE_DISK_MB = 48
LARGE = "e:crowd/large"
LARGE_BYTES = 100_000
REFUSING: Mapping[str, str] = {
    "gateway": "events",
    "matcher": "run-commands",
    "orchestrator": "steps",
    "executor": "step-results",
}
"""On what each of them writes something that is as large as an event."""

Strike = Callable[[], Awaitable[None]]
Stage = Callable[[Arena, str, Random], AbstractAsyncContextManager[Strike]]


@dataclass(frozen=True, slots=True)
class Nemesis:
    """`does` says it in the words of the table. `in_short`: the victims `make test` has time for."""

    name: str
    does: str
    victims: Sequence[str]
    stage: Stage
    in_short: Sequence[str] = ()
    needs_disk: bool = False
    brokers: int = 1


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def killed(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    async def strike() -> None:
        for _ in range(3):
            await arena.platform.ready([victim])
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            with arena.without_supervisor(victim):
                arena.platform.kill(victim)
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                arena.platform.restart(victim)

    yield strike


@asynccontextmanager
async def frozen(arena: Arena, victim: str, chance: Random, *, for_s: float) -> AsyncIterator[Strike]:
    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        arena.platform.freeze(victim)
        try:
            await asyncio.sleep(for_s)
        finally:
            arena.platform.thaw(victim)

    async with arena.twin(victim):
        yield strike


@asynccontextmanager
async def frozen_past_the_window(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    """What it had under way comes when more has been decided after it than a source window remembers."""

    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        arena.platform.freeze(victim)
        try:
            ends = await _unheard(arena, more_than=limits.SOURCE_WINDOW_OFFSETS)
            await eventually(lambda: _asked_beyond(arena, ends), timeout_s=60, what="the window is passed")
        finally:
            arena.platform.thaw(victim)

    async with arena.twin(victim):
        yield strike


async def _unheard(arena: Arena, *, more_than: int) -> dict[int, int]:
    """Post events that nobody hears, until each partition has got more than so many; where the last of each stands."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    posts = orjson.dumps([written("e:crowd/unheard", orderingKey=str(n)) for n in range(limits.BATCH_ITEMS_MAX)])
    async with aiohttp.ClientSession() as session:
        user = User(session, "", arena.gateways[0], arena.world.key)
        while len(last) < PARTITIONS or min(last[each] - first[each] for each in last) <= more_than:
            answer = await user.send("POST", f"{user.gateway}{PUBLISH}/batch", posts)
            assert answer.status == 200, answer.body
            for at in positions.parse(answer.headers[positions.HEADER]):
                last[at.partition] = at.offset
                first.setdefault(at.partition, at.offset)
    return last


async def _asked_beyond(arena: Arena, offsets: Mapping[int, int]) -> bool:
    """Whether a run was asked for by an event behind these, in each partition."""
    async with arena.asking() as db:
        rows = await db.fetch(
            'select e.partition, max(e."offset") as furthest from read.runs r join read.events e on e.id = r.event'
            " group by e.partition"
        )
    furthest = {row["partition"]: row["furthest"] for row in rows}
    assert all(furthest.get(each, -1) > offset for each, offset in offsets.items()), (furthest, offsets)
    return True


@asynccontextmanager
async def away(arena: Arena, victim: str, chance: Random, *, for_s: float) -> AsyncIterator[Strike]:
    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        with arena.without_supervisor(victim):
            arena.platform.kill(victim)
            await asyncio.sleep(for_s)
            arena.platform.restart(victim)

    if victim == "gateway":
        async with arena.twin(victim):
            yield strike
    else:
        yield strike


@asynccontextmanager
async def coming_and_going(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    async def strike() -> None:
        until = time.monotonic() + 15.0
        extras: list[str] = []
        while time.monotonic() < until or extras:
            if extras and (time.monotonic() >= until or chance.random() < 0.4 or len(extras) == 3):
                replica = extras.pop(chance.randrange(len(extras)))
                if chance.random() < 0.5:
                    arena.platform.kill(replica)
                await arena.send_off(replica)
            else:
                replica = f"{victim}-{secrets.token_hex(3)}"
                arena.platform.start(victim, replica=replica)
                extras.append(replica)
            await asyncio.sleep(chance.uniform(0.2, 2.0))

    yield strike


@asynccontextmanager
async def wrong_clock(arena: Arena, victim: str, chance: Random, *, by_ms: int) -> AsyncIterator[Strike]:
    async def strike() -> None:
        async with arena.given(victim, {"MILLRACE_CLOCK_OFFSET_MS": str(by_ms)}):
            await asyncio.sleep(chance.uniform(3.0, 5.0))

    yield strike


# ── the network ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _kafka(arena: Arena) -> TcpProxy:
    return arena.kafka_proxy


def _postgres(arena: Arena) -> TcpProxy:
    return arena.postgres_proxy


@asynccontextmanager
async def cut(arena: Arena, victim: str, chance: Random, *, way: Callable[[Arena], TcpProxy]) -> AsyncIterator[Strike]:
    async def strike() -> None:
        for _ in range(3):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            await way(arena).cut()
            await asyncio.sleep(chance.uniform(0.1, 3.0))
            way(arena).heal()

    async with arena.given(victim, arena.through_proxies()):
        yield strike


@asynccontextmanager
async def silent(
    arena: Arena, victim: str, chance: Random, *, way: Callable[[Arena], TcpProxy]
) -> AsyncIterator[Strike]:
    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        way(arena).hold()
        await asyncio.sleep(SILENT_S)
        way(arena).heal()

    async with arena.given(victim, arena.through_proxies()):
        yield strike


@asynccontextmanager
async def slow(arena: Arena, victim: str, chance: Random, *, way: Callable[[Arena], TcpProxy]) -> AsyncIterator[Strike]:
    async def strike() -> None:
        way(arena).delay_s = chance.uniform(0.03, 0.1)
        try:
            await asyncio.sleep(8.0)
        finally:
            way(arena).delay_s = 0.0

    async with arena.given(victim, arena.through_proxies()):
        yield strike


# ── the servers ─────────────────────────────────────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def restarted(arena: Arena, victim: str, chance: Random, *, kill: bool) -> AsyncIterator[Strike]:
    async def strike() -> None:
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            server = arena.kafka if victim == "kafka" else arena.postgres
            await (server.kill() if kill else server.stop())
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            await server.start()

    yield strike


@asynccontextmanager
async def server_away(arena: Arena, victim: str, chance: Random, *, for_s: float) -> AsyncIterator[Strike]:
    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        server = arena.kafka if victim == "kafka" else arena.postgres
        await server.kill()
        await asyncio.sleep(for_s)
        await server.start()

    yield strike


@asynccontextmanager
async def broker_frozen(arena: Arena, victim: str, chance: Random, *, for_s: float) -> AsyncIterator[Strike]:
    async def strike() -> None:
        arena.kafka.freeze()
        try:
            await asyncio.sleep(for_s)
        finally:
            arena.kafka.thaw()

    yield strike


@asynccontextmanager
async def brokers_killed(arena: Arena, victim: str, chance: Random, *, count: int) -> AsyncIterator[Strike]:
    """With two of three gone nothing is in sync enough: the rest takes no more, and loses nothing."""

    async def strike() -> None:
        victims = arena.brokers[:count]
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        for broker in victims:
            await broker.kill()
        await asyncio.sleep(chance.uniform(15.0, 20.0))
        for broker in victims:
            await broker.start()

    yield strike


@asynccontextmanager
async def one_frozen(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    async def strike() -> None:
        broker = chance.choice(arena.brokers)
        broker.freeze()
        try:
            await asyncio.sleep(10.0)
        finally:
            broker.thaw()

    yield strike


@asynccontextmanager
async def leaderless(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    """One partition of `events` has its only replica on the broker that dies; all others are led by those that stay,
    and what is published to them must go all the way meanwhile."""
    partition = chance.randrange(PARTITIONS)
    broker, node = arena.brokers[-1], len(arena.brokers) + 1

    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await broker.kill()
        try:
            await asyncio.sleep(15.0)
            before, led_before = await _ended_runs(arena), await leader()
            await asyncio.sleep(45.0)
            after, led_after = await _ended_runs(arena), await leader()
        finally:
            await broker.start()
        gained = {each: after.get(each, 0) - before.get(each, 0) for each in range(PARTITIONS)}
        print(f"\nruns that ended in 45 s, by the partition of their event: {gained}; {partition} had no leader")
        assert led_before == led_after == -1, (led_before, led_after)
        assert all(gain for each, gain in gained.items() if each != partition), (partition, gained)

    async with alone_on(arena.cluster, "events", partition, node) as leader:
        yield strike


async def _ended_runs(arena: Arena) -> dict[int, int]:
    async with arena.asking() as db:
        rows = await db.fetch(
            "select e.partition, count(*) as runs from read.runs r join read.events e on e.id = r.event"
            " where r.ended_at is not null group by e.partition"
        )
    return {row["partition"]: row["runs"] for row in rows}


async def _filled(disk: Disk) -> None:
    disk.fill()
    try:
        await asyncio.sleep(8.0)
    finally:
        disk.free()


@asynccontextmanager
async def disk_full(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    """A server that died of it is started again by whoever made room."""

    async def postgres_strike() -> None:
        assert arena.disk is not None
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await _filled(arena.disk)
        if arena.postgres.pid is None:
            await arena.postgres.start()

    if victim == "postgres":
        yield postgres_strike
        return
    with own_disk(arena.platform.folder / f"{victim}-disk", size_mb=STATE_DISK_MB) as disk:

        async def strike() -> None:
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await _filled(disk)

        async with arena.given(victim, {"MILLRACE_STATE_DIR": str(disk.at)}):
            yield strike


# ── what comes in, and who takes what goes out ──────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def garbage(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    async def strike() -> None:
        await spoil(arena.cluster)

    yield strike


@asynccontextmanager
async def refused(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    """For 8 s the broker takes only small batches on what the victim writes, and large events come amid the others.
    They wait, without harm to those beside them, and go all the way when it takes them again."""
    compiled = plans.compile_job(
        plans.Node(id="echo", type="transform", config=Raw(b'{"expression":"input"}')),
        id=ids.new_id(ids.JOB),
        version=1,
        name="a large one",
    )
    listener = SubscriptionControl(
        account=scenario.ACCOUNT, pattern=LARGE, target_kind="plan", target_id=compiled.id, created_at=0
    )
    plan = PlanControl(account=scenario.ACCOUNT, plan=Raw(plans.encode_plan(compiled)))
    job = "plan", scenario.ACCOUNT, compiled.id
    subscription = "subscription", scenario.ACCOUNT, ids.new_id(ids.SUBSCRIPTION)
    posted: list[str] = []

    async def strike() -> None:
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        async with asyncio.TaskGroup() as group:
            posting = []
            async with stricter(arena.cluster, REFUSING[victim], LARGE_BYTES // 2):
                for _ in range(4):
                    posting.append(group.create_task(_post_large(arena, chance.randbytes(LARGE_BYTES).hex())))
                    await asyncio.sleep(2.0)
                ended = await _completed(arena, [each.result() for each in posting if each.done()])
                assert ended < len(posting), "none of them was refused"
        posted.extend(each.result() for each in posting)

    async def all_ended() -> bool:
        return await _completed(arena, posted) == len(posted)

    writer = ControlWriter(arena.cluster)
    await writer.start()
    try:
        await writer.write([(*job, 1, encode(plan)), (*subscription, 1, encode(listener))])
        yield strike
        await eventually(all_ended, timeout_s=60, what="the large ones have all gone the whole way")
    finally:
        await writer.write([(*subscription, 2, None), (*job, 2, None)])
        await writer.stop()


async def _post_large(arena: Arena, filling: str) -> str:
    """Post it until it is taken; its id."""
    async with aiohttp.ClientSession() as session:
        user = User(session, "", arena.gateways[0], arena.world.key)
        body = orjson.dumps(written(LARGE, {"filling": filling}))
        while (answer := await user.send("POST", f"{user.gateway}{PUBLISH}", body)).status != 202:
            assert answer.status == 503, answer
            await asyncio.sleep(0.2)
        return str(answer.json["eventId"])


async def _completed(arena: Arena, events: Sequence[str]) -> int:
    """How many of them have had their run. It is one for each."""
    async with arena.asking() as db:
        rows = await db.fetch("select status from read.runs where event = any($1)", [ids.uuid_of(id) for id in events])
    assert len(rows) <= len(events), "a run twice"
    return sum(row["status"] == "completed" for row in rows)


@asynccontextmanager
async def ill_receivers(arena: Arena, victim: str, chance: Random, *, mood: str) -> AsyncIterator[Strike]:
    async def strike() -> None:
        arena.receivers.mood = mood
        await asyncio.sleep(chance.uniform(4.0, 6.0))
        arena.receivers.calm()

    yield strike


@asynccontextmanager
async def control_changed(arena: Arena, victim: str, chance: Random) -> AsyncIterator[Strike]:
    """The matcher dies with a part of its batches uncommitted, and its repeat sees another control view."""
    endpoint = next(id for kind, id, _ in arena.world.entries if kind == "endpoint")
    id = ids.new_id(ids.SUBSCRIPTION)
    listener = scenario.Listener(id, "delivery", lambda name, _: name == "beta")

    async def write(version: int, value: bytes | None) -> None:
        writer = ControlWriter(arena.cluster)
        await writer.start()
        try:
            await writer.write([("subscription", scenario.ACCOUNT, id, version, value)])
        finally:
            await writer.stop()

    async def strike() -> None:
        for _ in range(2):
            await arena.platform.ready([victim])
            await asyncio.sleep(chance.uniform(0.3, 1.0))
            with arena.without_supervisor(victim):
                arena.platform.kill(victim)
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                if not arena.changed:
                    await write(1, encode(made()))
                    arena.changed.append(Changed(listener, time.monotonic()))
                arena.platform.restart(victim)

    def made() -> SubscriptionControl:
        return SubscriptionControl(
            account=scenario.ACCOUNT,
            pattern=f"e:{scenario.PROVIDER}/beta",
            target_kind="endpoint",
            target_id=endpoint,
            created_at=SystemClock().now_ms(),
            filter=Raw(b"null"),
        )

    try:
        yield strike
    finally:
        await write(2, None)
        arena.changed.clear()


POSTGRES_USERS = ("projector", "api")
STATEFUL = ("orchestrator", "scheduler", "meter")
SERVERS = ("kafka", "postgres")
RECEIVERS = ("receivers",)

NEMESES: Sequence[Nemesis] = (
    Nemesis("SIGKILL", "three times, at random moments", SERVICES, killed),
    Nemesis("SIGSTOP 10 s", "then SIGCONT, while a twin took over", SERVICES, partial(frozen, for_s=10), ["matcher"]),
    Nemesis("SIGSTOP 70 s", "then SIGCONT, while a twin took over", SERVICES, partial(frozen, for_s=70)),
    Nemesis(
        "SIGSTOP past the window",
        "then SIGCONT, when 10,000 events more of each partition were decided by a twin",
        ["matcher"],
        frozen_past_the_window,
    ),
    Nemesis("away 70 s", "longer than any session or transaction lives", SERVICES, partial(away, for_s=70)),
    Nemesis("Kafka cut", "its connections, three times, none taken for up to 3 s", SERVICES, partial(cut, way=_kafka)),
    Nemesis("Kafka silent", "its connections stay, and pass nothing for 12 s", SERVICES, partial(silent, way=_kafka)),
    Nemesis("Kafka slow", "30 to 100 ms more each way for 8 s", SERVICES, partial(slow, way=_kafka)),
    Nemesis("Postgres cut", "as for Kafka", POSTGRES_USERS, partial(cut, way=_postgres), ["projector"]),
    Nemesis("Postgres silent", "as for Kafka", POSTGRES_USERS, partial(silent, way=_postgres)),
    Nemesis("Postgres slow", "as for Kafka", POSTGRES_USERS, partial(slow, way=_postgres)),
    Nemesis("joining and leaving", "replicas come, go and are killed for 15 s", SERVICES, coming_and_going),
    Nemesis("clock + 1 h", "an hour ahead, then right again", SERVICES, partial(wrong_clock, by_ms=HOUR_MS)),
    Nemesis("clock − 1 h", "an hour behind, then right again", SERVICES, partial(wrong_clock, by_ms=-HOUR_MS)),
    Nemesis("disk full", "for 8 s, on a tmpfs of its own", (*STATEFUL, "postgres"), disk_full, needs_disk=True),
    Nemesis("stop and start", "twice, away for up to 3 s", SERVERS, partial(restarted, kill=False)),
    Nemesis("SIGKILL", "twice, away for up to 3 s", SERVERS, partial(restarted, kill=True)),
    Nemesis("away 70 s", "killed; with one broker no partition has a leader", SERVERS, partial(server_away, for_s=70)),
    Nemesis("SIGSTOP 10 s", "then SIGCONT", ["kafka"], partial(broker_frozen, for_s=10)),
    Nemesis("control changed", "while it lay dead with uncommitted batches, twice", ["matcher"], control_changed),
    Nemesis("refused records", "too large ones amid the others, for 8 s", tuple(REFUSING), refused, ["gateway"]),
    Nemesis("poison records", "ten kinds of garbage on every partition of every topic", ["all"], garbage),
    *(
        Nemesis(mood, "to every webhook for 4 to 6 s", RECEIVERS, partial(ill_receivers, mood=mood))
        for mood in ("hang", "reset", "500", "429", "410", "100 MB")
    ),
    Nemesis("SIGKILL", "away for 15 to 20 s", ["one broker of three"], partial(brokers_killed, count=1), brokers=3),
    Nemesis("SIGSTOP 10 s", "then SIGCONT", ["one broker of three"], one_frozen, brokers=3),
    Nemesis(
        "too few in sync",
        "two killed for 15 to 20 s",
        ["two brokers of three"],
        partial(brokers_killed, count=2),
        brokers=3,
    ),
    Nemesis(
        "one partition leaderless",
        "its only broker killed for 60 s; the others go on",
        ["a partition of events"],
        leaderless,
        brokers=3,
    ),
)
