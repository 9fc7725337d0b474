"""Everything is killed while events flow, and nothing is lost, doubled or left open.

Gateway, matcher, orchestrator, scheduler, executor, dispatcher and projector get SIGKILL at seeded random moments and
the broker is killed and started anew once, while every event is posted until it has a 2xx. Afterwards each accepted
event has one row, exactly the runs and deliveries of the oracle exist, once, and all have ended; `millrace verify`
says `unaccounted 0`; and read models made anew from the log are equal.

`make test`: 3,000 events, each service dies once. `make fault` (`MILLRACE_FAULT=full`): 30,000, each at least three
times. `MILLRACE_SEED` replays a run.
"""

import asyncio
import hashlib
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
from aiohttp import web
from aiohttp.typedefs import Handler
from standardwebhooks import Webhook

from millrace_core import ids, keyring
from millrace_devstack.kafka import Kafka
from millrace_kafka.client import Cluster
from tests.fault import scenario
from tests.support.platform import Platform
from tests.support.waiting import eventually

FULL = os.environ.get("MILLRACE_FAULT") == "full"
EVENTS = 30_000 if FULL else 3_000
DEATHS = 3 if FULL else 1
SEED = int(os.environ.get("MILLRACE_SEED") or random.SystemRandom().randrange(2**32))
MORTAL = ("gateway", "matcher", "orchestrator", "scheduler", "executor", "dispatcher", "projector")
BROKER = "broker"
POSTERS = 32
SETTLE_S = 600.0 if FULL else 90.0
TABLES = (
    "events",
    "event_outcomes",
    "event_matches",
    "runs",
    "steps",
    "step_attempts",
    "deliveries",
    "delivery_attempts",
    "dead_letters",
    "account_book",
    "entities",
    "audit",
)


class Sink:
    """A receiver that checks every signature and refuses one message in thirty the first time."""

    def __init__(self, seed: int) -> None:
        self.secret = ""
        self.seen: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.bad_signatures = 0
        self._seed = seed

    async def webhook(self, request: web.Request) -> web.Response:
        body = await request.text()
        try:
            Webhook(self.secret).verify(body, dict(request.headers))
        except Exception:
            self.bad_signatures += 1
            return web.Response(status=400)
        return self._answer(self.seen, request.headers["webhook-id"])

    async def job(self, request: web.Request) -> web.Response:
        await request.read()
        return self._answer(self.jobs, request.headers["idempotency-key"])

    def _answer(self, seen: Counter[str], id: str) -> web.Response:
        seen[id] += 1
        unlucky = hashlib.sha256(f"{self._seed}{id}".encode()).digest()[0] < 8
        return web.Response(status=500 if unlucky and seen[id] == 1 else 200)

    @property
    def routes(self) -> dict[str, Handler]:
        return {"/job": self.job, "/{any}": self.webhook}


@asynccontextmanager
async def listening(routes: Mapping[str, Handler]) -> AsyncIterator[str]:
    """What takes POSTs by path; its URL."""
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_post(path, handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def post_all(url: str, key: str, events: Sequence[scenario.Posted]) -> dict[str, str]:
    """Post every event until it has a 2xx; event ids by unique key."""
    accepted: dict[str, str] = {}
    waiting = iter(events)

    async def poster(session: aiohttp.ClientSession) -> None:
        for event in waiting:
            while event.unique_key not in accepted:
                try:
                    async with session.post(url, json=event.body) as answer:
                        if answer.status == 202:
                            accepted[event.unique_key] = (await answer.json())["eventId"]
                        else:
                            assert answer.status == 503, (answer.status, await answer.text())
                            await asyncio.sleep(0.05)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    await asyncio.sleep(0.05)

    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(POSTERS):
            group.create_task(poster(session))
    return accepted


async def kill_all(
    platform: Platform,
    victims: Iterable[str],
    chance: random.Random,
    *,
    apart_s: tuple[float, float],
    broker: Kafka | None = None,
) -> None:
    """These die in a random order, at random moments; the broker once, among them, where it is given."""
    order = [*victims] if broker is None else [*victims, BROKER]
    chance.shuffle(order)
    for victim in order:
        await asyncio.sleep(chance.uniform(*apart_s))
        if broker is not None and victim == BROKER:
            await broker.restart(kill=True)
            continue
        platform.kill(victim)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        platform.restart(victim)


async def settled(db: asyncpg.Connection, accepted: int, runs: int, deliveries: int) -> bool:
    """Whether the read models hold all that must come, ended. Says how far it is when not."""
    open_events = await db.fetchval(
        "select count(*) from read.events e where not exists (select from read.event_outcomes where event = e.id)"
    )
    rows = {
        table: await db.fetchval(f"select count(*) from read.{table}") for table in ("events", "runs", "deliveries")
    }
    open_runs = await db.fetchval("select count(*) from read.runs where ended_at is null")
    open_deliveries = await db.fetchval("select count(*) from read.deliveries where ended_at is null")
    still = open_events + open_runs + open_deliveries
    assert not still, f"open: events {open_events}, runs {open_runs}, deliveries {open_deliveries}; rows {rows}"
    assert (rows["events"], rows["runs"], rows["deliveries"]) >= (accepted, runs, deliveries), rows
    return True


async def fingerprint(db: asyncpg.Connection) -> dict[str, str]:
    """A digest of each table's rows, in any order."""
    query = "select md5(coalesce(string_agg(t::text, E'\\n' order by t::text), '')) from read.{} t"
    return {table: await db.fetchval(query.format(table)) for table in TABLES}


async def prove(platform: Platform, db: asyncpg.Connection) -> None:
    """Everything is accounted for; and with all stopped, read models made anew from the log are equal."""
    verified = await asyncio.to_thread(platform.tool, "verify", timeout_s=180)
    assert "unaccounted 0" in verified.stdout, verified.stdout
    print(verified.stdout)
    platform.stop()
    before = await fingerprint(db)
    for table in TABLES:
        await db.execute(f"truncate read.{table}")
    await asyncio.to_thread(platform.tool, "rebuild", timeout_s=180)
    assert await fingerprint(db) == before


async def test_killed_at_random_nothing_is_lost_doubled_or_left_open(tmp_path: Path, database: str) -> None:
    print(f"\nMILLRACE_SEED={SEED}")
    chance = random.Random(SEED)
    events = scenario.events(SEED, EVENTS)
    sink = Sink(SEED)
    began = time.monotonic()
    async with Kafka(tmp_path / "kafka") as kafka, listening(sink.routes) as sink_url:
        platform = Platform(kafka.bootstrap, database, "kill", tmp_path / "millrace")
        with platform.stopping():
            world = scenario.world(sink_url, pepper=platform.pepper, ring=keyring.KeyRing.parse(platform.key_ring))
            sink.secret = world.secret
            await asyncio.to_thread(platform.prepare, partitions=4)
            await scenario.publish(Cluster(kafka.bootstrap, "kill"), world)
            for name in MORTAL:
                platform.start(name)
            await platform.ready()
            async with asyncio.TaskGroup() as group:
                posting = group.create_task(
                    post_all(platform.url("gateway") + "/ingest/event/publish", world.key, events)
                )
                group.create_task(
                    kill_all(platform, MORTAL * DEATHS, chance, apart_s=(0.2, 2.0 if FULL else 1.0), broker=kafka)
                )
            accepted = posting.result()
            posted_s = time.monotonic() - began
            await platform.ready(timeout_s=SETTLE_S)
            await check(platform, database, world, events, accepted, sink)
            print(f"posted by {posted_s:.0f} s, settled by {time.monotonic() - began:.0f} s; deaths {platform.deaths}")
    assert all(platform.deaths.get(name, 0) >= DEATHS for name in MORTAL)


async def check(
    platform: Platform,
    database: str,
    world: scenario.World,
    events: Sequence[scenario.Posted],
    accepted: dict[str, str],
    sink: Sink,
) -> None:
    """Compare what is there with the oracle, then verify, then rebuild."""
    expected = {"run": set[tuple[uuid.UUID, uuid.UUID]](), "delivery": set[tuple[uuid.UUID, uuid.UUID]]()}
    kinds = {listener.id: listener.kind for listener in world.listeners}
    for event in events:
        for listener in world.expected(event):
            pair = (ids.uuid_of(accepted[event.unique_key]), ids.uuid_of(listener))
            expected[kinds[listener]].add(pair)
    db = await asyncpg.connect(database)
    try:

        async def is_settled() -> bool:
            return await settled(db, EVENTS, len(expected["run"]), len(expected["delivery"]))

        await eventually(is_settled, timeout_s=SETTLE_S, every_s=0.5, what="the platform's rest")
        # Only a key that was posted again on another UTC day has an event of its own that is a duplicate.
        rows = await db.fetch(
            "select id from read.events e where not exists"
            " (select from read.event_outcomes where event = e.id and duplicate_of <> e.id)"
        )
        assert sorted(row["id"] for row in rows) == sorted(ids.uuid_of(id) for id in accepted.values())
        for kind, table in (("run", "runs"), ("delivery", "deliveries")):
            found = Counter(
                (row["event"], row["subscription"])
                for row in await db.fetch(f"select event, subscription from read.{table}")
            )
            assert set(found) == expected[kind], f"{table}: {len(found)} of {len(expected[kind])}"
            assert max(found.values()) == 1, f"{table} twice"
        good = {"runs": "completed", "deliveries": "succeeded"}
        for table, status in good.items():
            others = await db.fetch(f"select status, count(*) from read.{table} where status <> $1 group by 1", status)
            assert not others, (table, others)
        told = {event.properties["n"] % scenario.CUSTOMERS for event in events if event.name == scenario.TOLD}
        assert await db.fetchval("select count(*) from read.entities") == len(told)
        assert sink.bad_signatures == 0
        assert len(sink.seen) == len(expected["delivery"])
        await prove(platform, db)
    finally:
        await db.close()


async def test_the_oracle_disagrees_when_a_run_is_missing() -> None:
    """The comparison above can fail: an event that two listeners want is not satisfied by one."""
    made = scenario.world("http://127.0.0.1:9", pepper="p" * 32, ring=keyring.KeyRing.parse(f"k:{'A' * 43}="))
    posted = scenario.Posted("k", "alpha", {"n": 1, "total": 90, "customer": {"tier": "gold"}})
    assert len(made.expected(posted)) == 3
    quiet = scenario.Posted("k", "gamma", {"n": 1, "total": 50, "customer": {"tier": "silver"}})
    assert made.expected(quiet) == set()
