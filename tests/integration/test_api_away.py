"""Postgres, Kafka or Valkey away: every route of every surface says so in its document's own words, and goes on by
itself when they are back. The API is a process here, as it is run; what it stands on is reached through proxies."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import orjson
import pytest

from millrace_api.surfaces.which import envelope_of
from millrace_core.messages import AuditEntry, decode
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.ports import free_port
from millrace_kafka.client import Cluster
from millrace_kafka.reader import read_all
from millrace_web.errors import ApiError
from tests.support import infra
from tests.support.platform import Platform
from tests.support.routes import Guarded, guarded_routes
from tests.support.signing import signed_headers
from tests.support.tcp_proxy import TcpProxy
from tests.support.user import Answer, User
from tests.support.valkey import Valkey, valkey
from tests.support.waiting import eventually

GUARDED = [route for route in guarded_routes() if route.needs_key]
WITHOUT_POSTGRES = {"GET /v1/connectors/available"}
"""What is answered without it: what this process itself knows."""
AWAY_S = 30.0
SILENT_S = 10.0


@dataclass
class Stack:
    """One API, and what can be taken from it."""

    platform: Platform
    kafka: TcpProxy
    postgres: TcpProxy
    valkey: Valkey
    user: User
    signs: tuple[str, str]
    direct: str
    """Postgres past the proxy."""

    async def ask(self, route: Guarded) -> Answer:
        """About a thing that nobody has, with a body that is JSON."""
        body: dict[str, object] | None = {} if route.method in {"POST", "PUT", "PATCH"} else None
        # Once: what is said while something is away is what is looked at.
        content = None if body is None else orjson.dumps(body)
        return await self.user.send(route.method, self.user.api + route.filled("0" * 32), content)

    async def signed(self, method: str, target: str) -> Answer:
        headers = signed_headers(*self.signs, method, target)
        async with self.user.session.request(method, self.user.api + target, headers=headers) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def works(self) -> bool:
        """Reading and writing."""
        made = await self.user.ask("POST", "/v1/keys", {"name": "x", "scopes": ["read:runs"]})
        return made.status == 201 and (await self.user.ask("GET", "/v1/jobs")).status == 200

    async def uncounted(self, replica: str = "api") -> float:
        """What the metric says."""
        url = f"http://127.0.0.1:{self.platform.running[replica].ops_port}/metrics"
        async with self.user.session.get(url) as answer:
            found = re.search(r"^millrace_rate_limit_uncounted_total (\S+)", await answer.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0


@pytest.fixture(scope="module")
async def stack(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    folder, listener = tmp_path_factory.mktemp("away"), free_port()
    name = f"away{secrets.token_hex(6)}"
    await infra.execute(postgres, f'CREATE DATABASE "{name}" TEMPLATE template0')
    parts = urlsplit(postgres)._replace(path=f"/{name}")
    assert parts.port is not None
    async with (
        TcpProxy(listener) as kafka_proxy,
        TcpProxy(parts.port) as postgres_proxy,
        valkey() as limits,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        kafka = Kafka(folder / "kafka", proxied=Proxied(listener, kafka_proxy.port), heap="320m")
        await kafka.start()
        platform = Platform(
            f"127.0.0.1:{kafka_proxy.port}",
            urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{postgres_proxy.port}"))),
            name,
            folder / "millrace",
            extra_env={"MILLRACE_LIMITS": limits.url},
        )
        try:
            yield await _started(platform, session, kafka_proxy, postgres_proxy, limits, urlunsplit(parts))
        finally:
            kafka_proxy.heal()
            postgres_proxy.heal()
            await asyncio.to_thread(platform.stop)
            await kafka.kill()
    await infra.execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _started(
    platform: Platform, session: aiohttp.ClientSession, kafka: TcpProxy, postgres: TcpProxy, limits: Valkey, direct: str
) -> Stack:
    await asyncio.to_thread(platform.prepare, partitions=1)
    key = await asyncio.to_thread(platform.new_key, "a")
    platform.start("api")
    await platform.ready(["api"], timeout_s=60)
    user = User(session, platform.url("api"), "", key)

    async def is_known() -> bool:
        return (await user.ask("GET", "/v1/accounts/me")).status == 200

    await eventually(is_known, timeout_s=20, what="the key is in force")
    made = await user.make("/v1/keys", {"name": "signs", "surface": "ops", "scopes": ["*"]})
    return Stack(platform, kafka, postgres, limits, user, (made["key"], made["secret"]), direct)


def says_why(answer: Answer, route: Guarded) -> bool:
    """Whether it is a 503 as the route's document writes errors, with the time to come back."""
    envelope = envelope_of({"path": route.path, "headers": []})
    wanted = envelope.error(ApiError(503, ""), "")
    told, members = answer.json, wanted.get("error") or wanted
    return (
        answer.status == 503
        and set(told) == set(wanted)
        and set(members) <= set(told.get("error") or told)
        and int(answer.headers["Retry-After"]) >= 1
        and "X-RateLimit-Limit" in answer.headers
        and "X-Request-Id" in answer.headers
    )


async def test_without_postgres_every_route_says_so_and_then_goes_on(stack: Stack) -> None:
    assert await eventually(stack.works)
    pid = stack.platform.running["api"].process.pid
    await stack.postgres.cut()
    try:
        answers = {route: await stack.ask(route) for route in GUARDED}
        # What is wrong whatever Postgres holds is refused as ever.
        wrong = {str(route): a.body for route, a in answers.items() if a.status not in {400, 404, 503}}
        assert set(wrong) == WITHOUT_POSTGRES, wrong
        away = {route: answer for route, answer in answers.items() if answer.status == 503}
        assert len(away) > len(GUARDED) / 3
        assert [str(route) for route, answer in away.items() if not says_why(answer, route)] == []
        signed = await stack.signed("GET", "/v1/jobs")
        assert signed.status == 503, "nobody could say whether the nonce was used"
    finally:
        stack.postgres.heal()
    assert await eventually(stack.works, timeout_s=AWAY_S)
    assert (await stack.signed("GET", "/v1/jobs")).status == 200
    assert stack.platform.running["api"].process.pid == pid
    assert stack.platform.running["api"].process.poll() is None


async def test_a_silent_postgres_holds_no_request_for_ever(stack: Stack) -> None:
    assert await eventually(stack.works, timeout_s=AWAY_S)
    lists = [one for one in GUARDED if one.method == "GET" and not one.names and str(one) not in WITHOUT_POSTGRES]
    stack.postgres.hold()
    try:
        answers = await asyncio.wait_for(asyncio.gather(*(stack.ask(route) for route in lists)), SILENT_S)
        assert [str(route) for route, a in zip(lists, answers, strict=True) if not says_why(a, route)] == []
        async with asyncio.timeout(SILENT_S):
            written = await stack.user.ask("POST", "/v1/keys", {"name": "x", "scopes": ["read:runs"]})
        assert written.status == 503
    finally:
        stack.postgres.heal()
    assert await eventually(stack.works, timeout_s=AWAY_S)


@pytest.mark.parametrize("how", ["cut", "silent"])
async def test_without_kafka_every_route_says_so_and_then_goes_on(stack: Stack, how: str) -> None:
    assert await eventually(stack.works, timeout_s=AWAY_S)
    if how == "cut":
        await stack.kafka.cut()
    else:
        stack.kafka.hold()
    try:

        async def is_told() -> bool:
            return (await stack.user.ask("GET", "/v1/jobs")).status == 503

        await eventually(is_told, timeout_s=AWAY_S, what="the API knows that its keys may be out of date")
        answers = {route: await stack.ask(route) for route in GUARDED}
        assert [str(route) for route, answer in answers.items() if not says_why(answer, route)] == []
    finally:
        stack.kafka.heal()
    assert await eventually(stack.works, timeout_s=60)
    assert stack.platform.running["api"].process.poll() is None


async def test_what_is_asked_and_decided_while_kafka_is_silent_is_told_when_it_is_back(stack: Stack) -> None:
    """Nobody holds a connection for it meanwhile; the call of a yes, and each entry of the audit, is on the log by
    itself, and is one."""
    assert await eventually(stack.works, timeout_s=AWAY_S)
    name = f"away.a{secrets.token_hex(4)}"
    contract = {
        "id": name,
        "surface": "admin",
        "roles": ["member"],
        "description": "x",
        "parameters": {"type": "object", "properties": {}},
        "confirmation": {"policy": "always"},
        "endpoint": "http://127.0.0.1:9/",
    }
    assert (await stack.user.ask("POST", "/v1/actions", contract)).status == 201

    async def ask() -> Answer:
        return await stack.user.ask("POST", "/v1/actions/run", {"action": name, "params": {}})

    async def asked_for() -> str:
        answer = await ask()
        assert answer.status == 202, answer.body
        return str(answer.json["confirmation"]["id"])

    async def card() -> str:
        """What was silent a moment ago may hesitate once more: nothing was done then, so it is asked again."""
        return await eventually(asked_for, timeout_s=AWAY_S)

    async def untold() -> int:
        return await _counted(stack, "control.confirmations WHERE told IS DISTINCT FROM state")

    async def is_told() -> bool:
        return await untold() == 0

    async def in_silence(no: str, yes: str) -> list[Answer]:
        """What is answered to the three of them, asked while Kafka is silent and the list of keys still new."""
        calls = [
            ask(),
            stack.user.ask("POST", f"/v1/actions/confirmations/{no}/refuse"),
            stack.user.ask("POST", f"/v1/actions/confirmations/{yes}/confirm"),
        ]
        stack.kafka.hold()
        try:
            tasks = [asyncio.ensure_future(call) for call in calls]

            async def are_committed_or_over() -> bool:
                return await untold() == len(tasks) or any(task.done() for task in tasks)

            await eventually(are_committed_or_over)
            open_ones = "pg_stat_activity WHERE state LIKE 'idle in%' AND application_name = 'millrace api'"
            assert await _counted(stack, open_ones) == 0
        finally:
            stack.kafka.heal()
        return await asyncio.gather(*tasks)

    for _ in range(5):
        no, yes = await card(), await card()
        answers = await in_silence(no, yes)
        await eventually(is_told, timeout_s=60)
        if not any(answer.status == 503 and b"Keys cannot be checked" in answer.body for answer in answers):
            break
        assert await eventually(stack.works, timeout_s=AWAY_S)
    asked, refused, confirmed = answers
    assert (asked.status, refused.status) == (202, 200)
    assert (confirmed.status, confirmed.json["status"]) == (202, "running")
    asked_id, run = asked.json["confirmation"]["id"], confirmed.json["id"]
    cluster = Cluster(stack.platform.kafka, stack.platform.namespace)
    entries = [decode(record.value, AuditEntry) for record in await read_all(cluster, ["audit"])]
    told = {(one.kind, one.confirmation): one.id for one in entries if one.action == name}
    assert told.keys() >= {("action.asked", asked_id), ("action.refused", no), ("action.confirmed", yes)}
    assert len({one.id for one in entries}) == len({(one.kind, one.confirmation, one.run) for one in entries})
    commands = await read_all(cluster, ["run-commands"])
    assert run.encode() in {record.key for record in commands}


async def _counted(stack: Stack, what: str) -> int:
    connection = await asyncpg.connect(stack.direct)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {what}"))
    finally:
        await connection.close()


async def test_two_replicas_allow_what_one_would(stack: Stack) -> None:
    stack.platform.start("api", replica="api-2")
    try:
        await stack.platform.ready(["api-2"], timeout_s=60)

        async def statuses_and_left() -> tuple[list[int], int] | None:
            """None when a request passed uncounted: the store did not answer in time on a busy machine."""
            before = await both_uncounted()
            key = await asyncio.to_thread(_free_key, stack.platform)
            users = [User(stack.user.session, stack.platform.url(replica), "", key) for replica in ("api", "api-2")]

            async def all_know() -> bool:
                return all([(await user.ask("GET", "/v1/jobs/none")).status == 404 for user in users])

            await eventually(all_know, timeout_s=20, what="the key is in force in both")
            left = int((await users[0].ask("GET", "/v1/jobs/none")).headers["X-RateLimit-Remaining"])
            answers = await asyncio.gather(*(users[n % 2].ask("GET", "/v1/jobs/none") for n in range(100)))
            if await both_uncounted() != before:
                return None
            return sorted(answer.status for answer in answers), left

        async def both_uncounted() -> float:
            return await stack.uncounted("api") + await stack.uncounted("api-2")

        found = await eventually(statuses_and_left, timeout_s=60, what="every request is counted")
        assert found is not None
        statuses, left = found
        assert statuses == [404] * left + [429] * (100 - left)
        target, nonce = "/v1/jobs", secrets.token_hex(8)
        headers = signed_headers(*stack.signs, "GET", target, nonce=nonce)

        async def signed(replica: str) -> int:
            async with stack.user.session.get(stack.platform.url(replica) + target, headers=headers) as answer:
                return answer.status

        seen = await asyncio.gather(*(signed(replica) for replica in ("api", "api-2") * 3))
        assert sorted(seen) == [200] + [401] * 5, "a nonce is taken once, whichever replica is asked"
    finally:
        await asyncio.to_thread(stack.platform.end, "api-2")
        del stack.platform.running["api-2"]


@pytest.mark.parametrize("how", ["frozen", "dead"])
async def test_without_valkey_everything_goes_on_and_a_metric_says_so(stack: Stack, how: str) -> None:
    assert await eventually(stack.works, timeout_s=AWAY_S)
    limited = await asyncio.to_thread(_free_key, stack.platform)
    free = User(stack.user.session, stack.user.api, "", limited)

    async def is_known() -> bool:
        return (await free.ask("GET", "/v1/accounts/me")).status == 200

    await eventually(is_known, timeout_s=20, what="the key is in force")
    before = await stack.uncounted()
    if how == "frozen":
        stack.valkey.freeze()
    else:
        await stack.valkey.kill()
    try:
        for _ in range(70):
            began = time.monotonic()
            answer = await free.ask("GET", "/v1/accounts/me")
            assert answer.status == 200, "nothing is refused"
            assert answer.headers["X-RateLimit-Limit"] == "60"
            assert time.monotonic() - began < 1
        assert await stack.uncounted() >= before + 60
    finally:
        if how == "frozen":
            stack.valkey.wake()
        else:
            await stack.valkey.start()

    async def is_counted() -> bool:
        answer = await free.ask("GET", "/v1/accounts/me")
        return answer.status == 429 or int(answer.headers["X-RateLimit-Remaining"]) < 60

    await eventually(is_counted, timeout_s=10, what="requests are counted again")

    async def is_refused() -> bool:
        return (await free.ask("GET", "/v1/accounts/me")).status == 429

    await eventually(is_refused, timeout_s=20, what="as many as the plan allows were counted")


def _free_key(platform: Platform) -> str:
    name = f"free-{secrets.token_hex(4)}"
    return platform.tool("keys", "create", "--account", name, "--plan", "free").stdout.split()[-1]
