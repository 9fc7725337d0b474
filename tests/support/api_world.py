"""A real API over real Kafka and Postgres, in this process, with two accounts; what other services do is written by
hand (`project`)."""

import asyncio
import base64
import io
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import orjson
import structlog
from pydantic import SecretStr

from millrace_api.application.arrivals import PROJECTED
from millrace_api.settings import ApiSettings
from millrace_api.wiring import wire
from millrace_cli import bootstrap
from millrace_core import ids
from millrace_core.clock import SystemClock
from millrace_core.credentials import parse_pepper
from millrace_core.keyring import KeyRing
from millrace_devstack.ports import free_port
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_runtime.metrics import Metrics, MetricsObserver
from millrace_runtime.service import Context
from millrace_store.migrations import migrate
from tests.support.user import Answer, checked
from tests.support.waiting import eventually


@dataclass
class ApiWorld:
    """`ask` speaks for account A, `ask_b` for account B."""

    url: str
    dsn: str
    cluster: Cluster
    session: aiohttp.ClientSession
    seals: bootstrap.Seals
    context: Context
    account: str
    key: str
    key_b: str
    _letters: int = field(default=0, init=False)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Answer:
        """One request. While the API cannot check keys, on a machine that stood still for a second, it is asked again:
        nothing was done yet."""
        more = {"authorization": f"Bearer {key or self.key}", **(headers or {})}
        content = raw if raw is not None else None if body is None else orjson.dumps(body)
        if content is not None:
            more.setdefault("content-type", "application/json")

        async def once() -> Answer:
            data = None if content is None else io.BytesIO(content)
            async with self.session.request(method, self.url + path, data=data, headers=more) as answer:
                return Answer(answer.status, answer.headers, await answer.read())

        return await checked(once)

    async def ask_b(self, method: str, path: str, body: Any = None) -> Answer:
        return await self.ask(method, path, body, key=self.key_b)

    async def projected(self, kind: str) -> str:
        """The id of a row of account A that a client does not make himself, as its service would have written it."""
        if kind == "dead-letters":
            self._letters += 1
            await self.execute(_DEAD_LETTER, self._letters, self.account, b"\xff\x00")
            return f"dead-letters:0:{self._letters}"
        prefix, statement, content = _ROWS[kind]
        id = ids.new_id(prefix)
        await self.execute(statement, ids.uuid_of(id), self.account, content)
        return id

    async def reach(self, topic: str, next_offset: int) -> None:
        """Say how far the read models are, for every partition of a topic."""
        await self.execute("UPDATE read.positions SET next_offset = $2 WHERE topic = $1", topic, next_offset)

    async def value(self, statement: str, *args: Any) -> Any:
        """The first column of the first row."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(statement, *args)
        finally:
            await connection.close()

    async def execute(self, statement: str, *args: Any) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement, *args)
        finally:
            await connection.close()


PROPERTIES = b'{"n":  1e2, "long": 12345678901234567890, "z": "\\u0000"}'
BODY = b'{"a": 1.10}'
_EVENT = """INSERT INTO read.events (id, account, identifier, received_at, hops, partition, "offset", properties)
    VALUES ($1, $2, 'e:a/b', now(), 0, 0, 0, $3)"""
_RUN = "INSERT INTO read.runs (id, account, status, created_at, input) VALUES ($1, $2, 'running', now(), $3)"
_DELIVERY = """INSERT INTO read.deliveries (id, account, endpoint, event, status, attempts, created_at, body)
    VALUES ($1, $2, gen_random_uuid(), gen_random_uuid(), 'queued', 0, now(), $3)"""
_REPLAY = """INSERT INTO control.replays (id, account, state, since, until, pattern, per_s, cursor_at, cursor_id,
        requested_by, created_at, updated_at, ended_at)
    VALUES ($1, $2, 'completed', now(), now(), $3, 1, now(), gen_random_uuid(), 'key', now(), now(), now())"""
_ROWS: dict[str, tuple[str, str, bytes | str]] = {
    "events": (ids.EVENT, _EVENT, PROPERTIES),
    "runs": (ids.RUN, _RUN, b"{}"),
    "deliveries": (ids.DELIVERY, _DELIVERY, BODY),
    "replays": (ids.REPLAY, _REPLAY, "e:a/b"),
}
_DEAD_LETTER = """INSERT INTO read.dead_letters (topic, partition, "offset", account, at, reason, value, headers)
    VALUES ('dead-letters', 0, $1, $2, now(), 'was garbage', $3, '{}')"""
FAR = 1_000_000_000
PARTITIONS = 2


@asynccontextmanager
async def api_world(cluster: Cluster, dsn: str) -> AsyncIterator[ApiWorld]:
    """Everything up and ready; everything down at the end."""
    await create_topics(cluster, partitions=PARTITIONS)
    await migrate(dsn)
    pepper, ring = secrets.token_hex(32), "k1:" + base64.b64encode(secrets.token_bytes(32)).decode()
    seals = bootstrap.Seals(dsn, parse_pepper(pepper), KeyRing.parse(ring))
    wanted = bootstrap.Wanted("test", "automation")
    a = await bootstrap.create_key(seals, account="a", plan="enterprise", wanted=wanted)
    b = await bootstrap.create_key(seals, account="b", plan="enterprise", wanted=wanted)
    settings = ApiSettings(
        kafka=cluster.bootstrap,
        namespace=cluster.namespace,
        postgres=SecretStr(dsn),
        http_port=free_port(),
        key_pepper=SecretStr(pepper),
        key_ring=SecretStr(ring),
        egress_allow="127.0.0.0/8",
        sign_up=True,
    )
    context = _context()
    async with aiohttp.ClientSession() as session, context.stack, asyncio.TaskGroup() as tasks:
        for worker in (await wire(settings, context)).values():
            tasks.create_task(worker(context.stop))  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{settings.http_port}"
        context.health.started()
        await eventually(lambda: not context.health.reasons(), what="the API is ready")
        world = ApiWorld(url, dsn, cluster, session, seals, context, "", a.key, b.key)
        await eventually(lambda: _knows(world), what="the keys are in force")
        for topic in PROJECTED:
            for partition in range(PARTITIONS):
                await world.execute("INSERT INTO read.positions VALUES ($1, $2, $3)", topic, partition, FAR)
        world.account = (await world.ask("GET", "/v1/accounts/me")).data["id"]
        yield world
        context.stop.set()


async def _knows(world: ApiWorld) -> bool:
    answers = [await world.ask("GET", "/v1/accounts/me", key=key) for key in (world.key, world.key_b)]
    return all(answer.status == 200 for answer in answers)


def _context() -> Context:
    metrics, log = Metrics(), structlog.get_logger()
    return Context(
        name="api",
        instance="test",
        clock=SystemClock(),
        log=log,
        metrics=metrics,
        observer=MetricsObserver(metrics, log),
    )
