"""Ingest outlives everything else: what is behind the gateway goes away under load, and comes back.

Postgres is killed (in full also stopped in order) and stays away; later the API, the projector and the meter are down
together. Meanwhile every post must get its 202, and webhooks and runs go on, which need only Kafka. Afterwards every
accepted event is in the read models with its delivery and its run, and `millrace verify` finds nothing unaccounted.

`make test`: away for 5 s; `make fault` (`MILLRACE_FAULT=full`): for 60 s.
"""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import asyncpg
import pytest

from millrace_core import ids
from millrace_devstack.postgres import Postgres
from millrace_kafka.client import Cluster
from tests.support import infra
from tests.support.platform import SERVICES, Platform
from tests.support.sink import Sink, sink
from tests.support.user import User
from tests.support.waiting import eventually

FULL = os.environ.get("MILLRACE_FAULT") == "full"
AWAY_S = 60.0 if FULL else 5.0
POSTERS = 8
PAUSE_S = 0.05
SETTLE_S = 180.0 if FULL else 60.0
HOOK, CALL = "/hook", "/call"
BEHIND = ("api", "projector", "meter")


@dataclass(frozen=True, slots=True)
class World:
    """A running Millrace whose Postgres is its own; a webhook and a job listen to every event of `e:load/*`."""

    platform: Platform
    postgres: Postgres
    dsn: str
    user: User
    sink: Sink


@dataclass
class Load:
    """Posts that go on until told to stop. A post that got no answer counts as refused."""

    accepted: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    async def run(self, user: User, name: str, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(POSTERS):
                group.create_task(self._post(user, f"e:load/{name}-{n}", stop))

    async def _post(self, user: User, identifier: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                answer = await user.post(identifier, {"at": len(self.accepted)})
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.refused[type(error).__name__] += 1
            else:
                if answer.status == 202:
                    self.accepted.append(answer.json["eventId"])
                else:
                    self.refused[f"{answer.status} {answer.body!r}"] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)


@pytest.fixture(scope="module")
async def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Everything ready, and its listeners made through the API."""
    cluster = Cluster(kafka, namespace=f"out{secrets.token_hex(6)}")
    async with Postgres(infra.own_home() / "outages") as postgres, aiohttp.ClientSession() as session, sink() as made:
        dsn = await postgres.ensure_database("outages")
        platform = Platform(kafka, dsn, cluster.namespace, tmp_path_factory.mktemp("millrace"))
        try:
            await asyncio.to_thread(platform.prepare, partitions=2)
            key = await asyncio.to_thread(platform.new_key, "load")
            for name in SERVICES:
                platform.start(name)
            await platform.ready(timeout_s=120)
            user = User(session, platform.url("api"), platform.url("gateway"), key)
            await user.welcome()
            await user.make("/v1/webhooks", {"url": made.url + HOOK, "events": ["e:load/*"]})
            call = {"type": "http", "config": {"url": made.url + CALL, "body": {"event": "${event.id}"}}}
            job = await user.make("/v1/jobs", {"name": "call", "step": call})
            await user.make("/v1/subscriptions", {"pattern": "e:load/*", "target": {"type": "job", "id": job["id"]}})
            yield World(platform, postgres, dsn, user, made)
        except BaseException:
            for replica in platform.running:
                print(f"── {replica}\n{platform.tail(replica, 15)}")
            raise
        finally:
            await asyncio.to_thread(platform.stop)
            await infra.drop_topics(cluster)


async def under_load(
    world: World, name: str, go: Callable[[], Awaitable[None]], come_back: Callable[[], Awaitable[None]]
) -> None:
    """Let something go and come back while events are posted; then judge."""
    load, stop = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        posting = group.create_task(load.run(world.user, name, stop))
        await eventually(lambda: len(load.accepted) >= 2 * POSTERS, what="the load runs")
        await go()
        gone, outside = len(load.accepted), len(world.sink.arrived[HOOK])
        await asyncio.sleep(AWAY_S)
        meanwhile, outside = len(load.accepted) - gone, len(world.sink.arrived[HOOK]) - outside
        await come_back()
        back = len(load.accepted)
        await eventually(lambda: len(load.accepted) >= back + 2 * POSTERS, what="the load goes on")
        stop.set()
        await posting
    print(
        f"\n{name} away for {AWAY_S:.0f} s: {len(load.accepted)} of "
        f"{len(load.accepted) + load.refused.total()} posts accepted ({meanwhile} meanwhile, the slowest after "
        f"{load.slowest_s * 1000:.0f} ms), {outside} webhooks arrived meanwhile"
    )
    assert not load.refused, load.refused
    assert meanwhile > 0
    assert outside > 0, "webhooks need neither Postgres nor what is behind it"
    began = time.monotonic()
    try:
        await all_projected(world, load.accepted)
    except AssertionError:
        print(world.platform.tail("projector", 30))
        raise
    print(f"everything was projected {time.monotonic() - began:.1f} s after")
    await world.platform.ready(timeout_s=30)
    verified = await asyncio.to_thread(world.platform.tool, "verify")
    assert "unaccounted 0" in verified.stdout, verified.stdout


async def all_projected(world: World, accepted: list[str]) -> None:
    """Each event has its row, one run that completed and one delivery that succeeded."""
    wanted = [ids.uuid_of(id) for id in accepted]
    db = await asyncpg.connect(world.dsn)
    try:

        async def is_there() -> bool:
            found = (
                await db.fetchval("select count(*) from read.events where id = any($1)", wanted),
                *[
                    await db.fetchval(
                        f"select count(*) from read.{table} where status = $2 and event = any($1)", wanted, status
                    )
                    for table, status in (("runs", "completed"), ("deliveries", "succeeded"))
                ],
            )
            assert found == (len(wanted),) * 3, f"events, runs, deliveries: {found} of {len(wanted)}"
            return True

        await eventually(is_there, timeout_s=SETTLE_S, every_s=0.2)
    finally:
        await db.close()


@pytest.mark.parametrize("how", ["kill", "stop"] if FULL else ["kill"])
async def test_postgres_away(world: World, how: str) -> None:
    before = {name: running.process.pid for name, running in world.platform.running.items()}

    async def go() -> None:
        await (world.postgres.kill() if how == "kill" else world.postgres.stop())
        began = time.monotonic()
        answer = await world.user.ask("GET", "/v1/events")
        print(f"\nthe API without Postgres: {answer.status} after {(time.monotonic() - began) * 1000:.0f} ms")
        assert answer.status == 503

    await under_load(world, f"postgres-{how}", go, world.postgres.start)
    after = {
        name: running.process.pid for name, running in world.platform.running.items() if running.process.poll() is None
    }
    assert after == before, "nobody died of it"


async def test_what_is_behind_the_log_away(world: World) -> None:
    async def go() -> None:
        for name in BEHIND:
            world.platform.kill(name)

    async def come_back() -> None:
        for name in BEHIND:
            world.platform.restart(name)
        await world.platform.ready(BEHIND)

    await under_load(world, "-".join(BEHIND), go, come_back)
