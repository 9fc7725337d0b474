"""One whole Millrace on servers of its own, under load, for faults to be done to it; and the judge of what came of it.

The oracle is `scenario`'s. An arena serves many faults one after the other: each is judged by the events of its own
load alone, and `millrace verify` by the whole log. A service that falls is started anew, as its supervisor would.
Not here: the faults (`nemeses`) and their table (`ledger`).
"""

import asyncio
import os
import re
import secrets
import signal
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aiohttp
import asyncpg
from aiohttp import web
from standardwebhooks import Webhook

from millrace_core import ids, keyring
from millrace_devstack import launch, ports
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.postgres import Postgres
from millrace_kafka.client import Cluster
from tests.fault import scenario
from tests.support.own_disk import Disk, own_disk, refusal
from tests.support.platform import BOUND, SERVICES, Platform
from tests.support.tcp_proxy import LOCALHOST, TcpProxy
from tests.support.waiting import eventually

PARTITIONS = 4
LANES = 13  # ordering keys, each posted in order
PAUSE_S = 0.2
EVENTS_MAX = 30_000  # what all lanes post in seven minutes
POST_TIMEOUT_S = 5.0
SETTLE_S = 150.0
SUPERVISED_EVERY_S = 0.2
POSTGRES_DISK_MB = 1_024
# Long enough to outlast what a fault does to a receiver and the breaker's pause after it.
RETRY_SCHEDULE_S = (0.3, 0.3, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 20.0, 20.0, 20.0, 20.0)
TIMEOUT_S = 2.0
REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
}
HUGE_BYTES = 100 * 1_048_576

Pair = tuple[UUID, UUID]
"""An event and the subscription that heard it."""


@dataclass
class Receivers:
    """Where webhooks and http steps go. `mood` is how webhooks are answered: "ok", or a way to misbehave. One message
    in sixteen is refused the first time anyway, so that there are always retries, and timers, on their way."""

    secret: str = ""
    mood: str = "ok"
    came: Counter[str] = field(default_factory=Counter)
    taken: Counter[UUID] = field(default_factory=Counter)
    gone: set[UUID] = field(default_factory=set)
    forged: int = 0
    disordered: int = 0
    _calm: asyncio.Event = field(default_factory=asyncio.Event)

    def calm(self) -> None:
        """Answer as one should again; what hung is let go."""
        self.mood = "ok"
        self._calm.set()
        self._calm = asyncio.Event()

    def forget(self) -> None:
        """Begin to count anew."""
        self.came.clear()
        self.taken.clear()
        self.gone.clear()
        self.forged = self.disordered = 0

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        try:
            Webhook(self.secret).verify(body, dict(request.headers))
        except Exception:
            self.forged += 1
            return web.Response(status=400)
        delivery = ids.uuid_of(request.headers["webhook-id"])
        match self.mood:
            case "hang":
                await self._calm.wait()
                return web.Response(status=500)
            case "reset":
                assert request.transport is not None
                request.transport.abort()
                return web.Response(status=500)
            case "410":
                self.gone.add(delivery)
                return web.Response(status=410)
            case "429":
                return web.Response(status=429, headers={"retry-after": "1"})
            case "500":
                return web.Response(status=500, text="ill")
            case "100 MB":
                self.taken[delivery] += 1
                return await self._huge(request)
        if self._is_refused(request.headers["webhook-id"]):
            return web.Response(status=503)
        self.taken[delivery] += 1
        return web.Response()

    async def job(self, request: web.Request) -> web.Response:
        """A chain's second step brings what its first one made: out of order it could not."""
        body = await request.json()
        if "twice" in body and body["twice"] != 2 * body["total"]:
            self.disordered += 1
        key = request.headers["idempotency-key"]
        return web.Response(status=503 if self._is_refused(key) else 200)

    def _is_refused(self, id: str) -> bool:
        self.came[id] += 1
        return self.came[id] == 1 and zlib.crc32(id.encode()) % 16 == 0

    async def _huge(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": str(HUGE_BYTES)})
        await answer.prepare(request)
        chunk = bytes(65_536)
        for _ in range(HUGE_BYTES // len(chunk)):
            await answer.write(chunk)
        return answer


@asynccontextmanager
async def listening(receivers: Receivers) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/job", receivers.job)
    app.router.add_post("/{any}", receivers.webhook)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, LOCALHOST, 0).start()
    try:
        yield f"http://{LOCALHOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Changed:
    """A listener that came while the load ran: events posted from `since_s` on must reach it, earlier ones may."""

    listener: scenario.Listener
    since_s: float


@dataclass
class Load:
    """Events posted until told to stop, each until it has a 202; those of one ordering key one after the other."""

    events: Sequence[scenario.Posted]
    accepted: dict[str, str] = field(default_factory=dict)
    began_s: dict[str, float] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, gateways: Sequence[str], key: str) -> None:
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, asyncio.TaskGroup() as group:
            for lane in range(LANES):
                group.create_task(self._lane(session, gateways, self.events[lane::LANES]))

    async def _lane(
        self, session: aiohttp.ClientSession, gateways: Sequence[str], events: Sequence[scenario.Posted]
    ) -> None:
        for event in events:
            if self.stop.is_set():
                return
            self.began_s[event.unique_key] = time.monotonic()
            tries = 0
            while not await self._post(session, gateways[tries % len(gateways)], event):
                tries += 1
                await asyncio.sleep(0.1)
            await asyncio.sleep(PAUSE_S)
        raise AssertionError("the load ran out of events")

    async def _post(self, session: aiohttp.ClientSession, gateway: str, event: scenario.Posted) -> bool:
        try:
            async with session.post(f"{gateway}/ingest/event/publish", json=event.body) as answer:
                if answer.status == 202:
                    self.accepted[event.unique_key] = (await answer.json())["eventId"]
                    return True
                assert answer.status == 503, (answer.status, await answer.text())
                self.refused["503"] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.refused[type(error).__name__] += 1
        return False


@dataclass
class Verdict:
    """What came of a load. `lost` counts events, runs and deliveries that ought to be there and to have ended well."""

    events: int
    lost: int = 0
    twice: int = 0
    unordered: int = 0
    unaccounted: int = 0
    recovery_s: float | None = None
    falls: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        wrong = self.lost or self.twice or self.unordered or self.unaccounted or self.notes
        return not wrong and self.recovery_s is not None


@dataclass
class Arena:
    """`down` names replicas whose supervisor looks away; `gateways` is where the load goes, tried in turn; `brokers`
    are those beside `kafka`, which is their controller."""

    platform: Platform
    kafka: Kafka
    brokers: list[Kafka]
    postgres: Postgres
    dsn: str
    kafka_proxy: TcpProxy
    postgres_proxy: TcpProxy
    disk: Disk | None
    receivers: Receivers
    world: scenario.World
    gateways: list[str]
    changed: list[Changed] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    falls: Counter[str] = field(default_factory=Counter)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.platform.kafka, self.platform.namespace)

    # ── what faults are made of ─────────────────────────────────────────────────────────────────────────────────────
    @contextmanager
    def without_supervisor(self, replica: str) -> Iterator[None]:
        """Whatever falls in here stays down until the end of the block."""
        self.down.add(replica)
        try:
            yield
        finally:
            self.down.discard(replica)

    async def begin_anew(self, replica: str, env: Mapping[str, str]) -> None:
        """End it in order and start it with this environment."""
        with self.without_supervisor(replica):
            await asyncio.to_thread(self.platform.end, replica)
            self.platform.restart(replica, env=env)

    @asynccontextmanager
    async def given(self, replica: str, env: Mapping[str, str]) -> AsyncIterator[None]:
        """It runs with this environment, ready, as long as the block; afterwards as before."""
        await self.begin_anew(replica, env)
        await self.platform.ready([replica])
        try:
            yield
        finally:
            await self.begin_anew(replica, {})

    def through_proxies(self) -> Mapping[str, str]:
        """The environment of a service that reaches its servers only through the proxies."""
        proxied = urlsplit(self.dsn)
        netloc = f"{proxied.netloc.rpartition(':')[0]}:{self.postgres_proxy.port}"
        return {
            "MILLRACE_KAFKA": f"{LOCALHOST}:{self.kafka_proxy.port}",
            "MILLRACE_POSTGRES": urlunsplit(proxied._replace(netloc=netloc)),
        }

    @asynccontextmanager
    async def twin(self, victim: str) -> AsyncIterator[str]:
        """A second replica, ready, as long as the block: who takes over while the victim is frozen."""
        replica = f"{victim}-twin"
        self.platform.start(victim, replica=replica)
        await self.platform.ready([replica])
        if victim == "gateway":
            self.gateways.append(self.platform.url(replica))
        try:
            yield replica
        finally:
            if victim == "gateway":
                self.gateways.pop()
            await self.send_off(replica)

    async def send_off(self, replica: str) -> None:
        """End a replica for good."""
        with self.without_supervisor(replica):
            await asyncio.to_thread(self.platform.end, replica)
            del self.platform.running[replica]

    # ── the supervisor, the load, the judge ─────────────────────────────────────────────────────────────────────────
    async def supervise(self) -> None:
        """Start what fell anew, for ever."""
        while True:
            for replica, running in list(self.platform.running.items()):
                if replica not in self.down and running.process.poll() is not None:
                    self.falls[replica] += 1
                    self.platform.restart(replica)
            await asyncio.sleep(SUPERVISED_EVERY_S)

    @asynccontextmanager
    async def loaded(self, seed: int) -> AsyncIterator[Load]:
        """Events flow, and have begun to, as long as the block; every one has its 202 behind it."""
        load = Load(scenario.events(seed, EVENTS_MAX))
        self.receivers.forget()
        self.falls.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(self.gateways, self.world.key))
            try:
                await eventually(lambda: len(load.accepted) >= 2 * LANES, timeout_s=30, what="the load runs")
                yield load
            finally:
                load.stop.set()

    async def recovered(self, load: Load) -> float | None:
        """How long it takes, while the load goes on, until all are ready and what was accepted before has ended well.
        None when it takes longer than is waited for."""
        began_s = time.monotonic()
        so_far = replace(load, accepted=dict(load.accepted))
        try:
            await self._at_rest(so_far)
        except AssertionError as error:
            print(f"not recovered: {error}")
            return None
        return round(time.monotonic() - began_s, 1)

    async def judged(self, load: Load) -> Verdict:
        """Wait until everything has come to rest, and compare with the oracle. Never raises for what came out wrong."""
        verdict = Verdict(len(load.accepted), falls=self.falls.total())
        try:
            await self._at_rest(load)
        except AssertionError as error:
            verdict.notes.append(str(error))
        async with self._judge(load) as judge:
            await judge.compare(verdict)
        verdict.unaccounted = await self._unaccounted(verdict)
        return verdict

    async def _at_rest(self, load: Load) -> None:
        await self.platform.ready(timeout_s=SETTLE_S)
        async with self._judge(load) as judge:
            await eventually(judge.is_settled, timeout_s=SETTLE_S, every_s=0.1, what="the platform's rest")

    @asynccontextmanager
    async def asking(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """A connection to the read models."""
        db = await asyncpg.connect(self.dsn, timeout=30)
        try:
            yield db
        finally:
            await db.close()

    @asynccontextmanager
    async def _judge(self, load: Load) -> AsyncIterator["_Judge"]:
        async with self.asking() as db:
            yield _Judge(self, load, db)

    async def _unaccounted(self, verdict: Verdict) -> int:
        try:
            said = (await asyncio.to_thread(self.platform.tool, "verify", timeout_s=180)).stdout
        except AssertionError as error:
            said = str(error)
            verdict.notes.append(said)
        found = re.search(r"unaccounted (\d+)", said)
        return int(found[1]) if found else -1


class _Judge:
    """One load's events against the oracle."""

    def __init__(self, arena: Arena, load: Load, db: "asyncpg.Connection[Any]") -> None:
        self._receivers, self._db = arena.receivers, db
        self._events = [ids.uuid_of(id) for id in load.accepted.values()]
        self._must: dict[str, set[Pair]] = {"run": set(), "delivery": set()}
        self._may: dict[str, set[Pair]] = {"run": set(), "delivery": set()}
        since = dict.fromkeys((listener.id for listener in arena.world.listeners), 0.0)
        since |= {changed.listener.id: changed.since_s for changed in arena.changed}
        listeners = [*arena.world.listeners, *(changed.listener for changed in arena.changed)]
        for event in load.events:
            if (id := load.accepted.get(event.unique_key)) is None:
                continue
            for listener in listeners:
                if listener.expects(event.name, event.properties):
                    is_sure = load.began_s[event.unique_key] >= since[listener.id]
                    sort = self._must if is_sure else self._may
                    sort[listener.kind].add((ids.uuid_of(id), ids.uuid_of(listener.id)))

    async def is_settled(self) -> bool:
        """Every event has its outcome, and all that is there and all that must be there has ended."""
        decided = await self._db.fetchval(
            "select count(distinct event) from read.event_outcomes where event = any($1)", self._events
        )
        assert decided == len(self._events), f"{decided} of {len(self._events)} events are decided"
        for table, must in (("runs", self._must["run"]), ("deliveries", self._must["delivery"])):
            rows = await self._db.fetch(
                f"select event, subscription, ended_at is null as open from read.{table} where event = any($1)",
                self._events,
            )
            still = sum(row["open"] for row in rows)
            missing = len(must - {(row["event"], row["subscription"]) for row in rows})
            assert not still, f"{still} {table} are open"
            assert not missing, f"{missing} {table} are missing"
        return True

    async def compare(self, verdict: Verdict) -> None:
        rows = await self._db.fetch(
            "select id, identifier, ordering_key, partition, \"offset\", properties_json->>'n' as n from read.events"
            " where id = any($1)",
            self._events,
        )
        verdict.lost += len(set(self._events)) - len(rows)
        verdict.unordered += _out_of_order(rows) + self._receivers.disordered
        for kind, table, good in (("run", "runs", "completed"), ("delivery", "deliveries", "succeeded")):
            found = await self._db.fetch(
                f"select id, event, subscription, status from read.{table} where event = any($1)", self._events
            )
            self._compare_one(verdict, kind, good, found)
        if self._receivers.forged:
            verdict.notes.append(f"{self._receivers.forged} webhooks with a wrong signature")

    def _compare_one(self, verdict: Verdict, kind: str, good: str, rows: Sequence[asyncpg.Record]) -> None:
        pairs = Counter((row["event"], row["subscription"]) for row in rows)
        must, may = self._must[kind], self._may[kind]
        verdict.lost += len(must - set(pairs))
        verdict.twice += sum(count - 1 for count in pairs.values())
        if unasked := set(pairs) - must - may:
            verdict.notes.append(f"{len(unasked)} of kind {kind} that nobody asked for")
        for row in rows:
            # Who answered 410 wanted no more of it.
            ended = "failed" if kind == "delivery" and row["id"] in self._receivers.gone else good
            never_came = kind == "delivery" and ended == good and not self._receivers.taken[row["id"]]
            verdict.lost += row["status"] != ended or never_came


def _out_of_order(rows: Sequence[asyncpg.Record]) -> int:
    """How many events stand on the log before one of the same key that had its answer earlier."""
    wrong = 0
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for row in sorted(rows, key=lambda row: int(row["n"])):
        key, stands = (row["identifier"], row["ordering_key"]), (row["partition"], row["offset"])
        before = last.get(key)
        wrong += before is not None and (before[0] != stands[0] or before[1] >= stands[1])
        last[key] = stands
    return wrong


@asynccontextmanager
async def arena(home: Path, *, brokers: int = 1) -> AsyncIterator[Arena]:
    """Everything ready. Postgres lies on a disk of its own where the system permits one; of several brokers every topic
    has three replicas."""
    listener = ports.free_port()
    receivers = Receivers()
    place = own_disk(home / "disk", size_mb=POSTGRES_DISK_MB) if refusal() is None else nullcontext()
    with place as disk:
        settings = {"max_wal_size": "96MB", "min_wal_size": "32MB"}
        of_several = REPLICATED if brokers > 1 else {}
        async with (
            TcpProxy(listener) as kafka_proxy,
            Kafka(home / "kafka", proxied=Proxied(listener, kafka_proxy.port), settings=of_several) as kafka,
            AsyncExitStack() as others,
            Postgres((disk.at if disk else home) / "postgres", settings=settings) as postgres,
            TcpProxy(postgres.port) as postgres_proxy,
            listening(receivers) as sink_url,
        ):
            further = [
                await others.enter_async_context(
                    Kafka(home / f"kafka-{n}", settings=of_several, joins=kafka, node_id=n, heap="320m")
                )
                for n in range(2, brokers + 1)
            ]
            dsn = await postgres.ensure_database("arena")
            bound = (*BOUND, str(os.getpid()), str(int(signal.SIGKILL)), launch.SAME_USER, "--", sys.executable)
            platform = Platform(kafka.bootstrap, dsn, f"arena{secrets.token_hex(4)}", home / "millrace", python=bound)
            made = scenario.world(
                sink_url,
                pepper=platform.pepper,
                ring=keyring.KeyRing.parse(platform.key_ring),
                retry_schedule_s=RETRY_SCHEDULE_S,
                timeout_s=TIMEOUT_S,
            )
            receivers.secret = made.secret
            whole = Arena(
                platform, kafka, further, postgres, dsn, kafka_proxy, postgres_proxy, disk, receivers, made, gateways=[]
            )
            supervisor = None
            try:
                await asyncio.to_thread(platform.prepare, partitions=PARTITIONS)
                await scenario.publish(whole.cluster, made)
                for name in SERVICES:
                    platform.start(name)
                await platform.ready(timeout_s=120)
                whole.gateways.append(platform.url("gateway"))
                supervisor = asyncio.ensure_future(whole.supervise())
                yield whole
            finally:
                if supervisor is not None:
                    supervisor.cancel()
                    await asyncio.wait([supervisor])
                await asyncio.to_thread(platform.stop)
