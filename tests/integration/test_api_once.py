"""`Idempotency-Key`, for every POST of every surface: done once, answered alike, and not to be had for another request.

A route that is added is in here by itself; where it takes a body, that stands in `BODIES`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from millrace_core.clock import SystemClock, utc_now
from millrace_devstack.ports import free_port
from tests.support.api_world import ApiWorld
from tests.support.routes import Guarded, guarded_routes
from tests.support.things import MAKERS, STEP, Maker, posted
from tests.support.user import Answer
from tests.support.waiting import eventually

ELSEWHERE: Final = {"POST /v1/actions/confirmations/{id}/confirm"}
"""What waits for an executor, which is not here (`tests/conformance/test_seed_001_actions.py`)."""
POSTS: Final = [
    route for route in guarded_routes() if route.method == "POST" and route.needs_key and str(route) not in ELSEWHERE
]
REFUSED: Final = {"POST /v1/dead-letters/{id}/redrive", "POST /v1/replays/{id}/cancel"}
"""What is 409 of the thing that is made here: a refusal is given again too."""
NOWHERE: Final = "http://127.0.0.1:9/"
CONTRACT: Final = {
    "surface": "admin",
    "roles": ["member"],
    "description": "x",
    "parameters": {"type": "object", "properties": {}},
    "endpoint": NOWHERE,
    "timeout_s": 1,
}
FIELDS: Final = [{"name": "name", "type": "text", "required": True}]
WORKFLOW: Final = {"name": "x", "nodes": [{"id": "a", **STEP}]}


async def _integration(api: ApiWorld, so_far: str) -> str:
    credential = await MAKERS["/v1/credentials/"](api, so_far)
    wanted = {"provider": "slack", "credential": credential, "base_url": NOWHERE}
    return await posted("/v1/integrations", wanted)(api, so_far)


# Of these a thing of its own is wanted here: one that nobody outside is asked for, or that can be executed.
OWN: Final[Mapping[str, Maker]] = {
    "/api/workflows/": posted("/v1/workflows", WORKFLOW),
    "/v1/workflows/": posted("/v1/workflows", WORKFLOW),
    "/v1/connectors/": posted("/v1/connectors", {"connector": "stripe", "name": "x"}),
    "/v1/integrations/": _integration,
}


async def body_of(api: ApiWorld, route: Guarded) -> Any:
    """What the route takes; None where that is nothing."""
    unique = secrets.token_hex(6)
    match str(route):
        case "POST /v1/actions":
            return {**CONTRACT, "id": f"once.a{unique}"}
        case "POST /v1/actions/run":
            action = {**CONTRACT, "id": f"once.a{unique}", "confirmation": {"policy": "always"}}
            await api.ask("POST", "/v1/actions", action)
            return {"action": action["id"], "params": {}}
        case "POST /v1/credentials":
            return {"name": f"once {unique}", "type": "api_key", "value": "some value"}
        case "POST /v1/integrations":
            return {"provider": "slack", "credential": await MAKERS["/v1/credentials/"](api, "")}
        case "POST /v1/people":
            return {"email": f"once-{unique}@example.test"}
        case "POST /v1/subscriptions" | "POST /v1/subscriptions/backtest":
            return {"pattern": "e:a/b", "target": {"type": "job", "id": await MAKERS["/v1/jobs/"](api, "")}}
        case "POST /v1/events/replay":
            return {"since": (utc_now(SystemClock()) - timedelta(hours=1)).isoformat()}
        case name:
            return BODIES.get(name)


BODIES: Final[Mapping[str, Any]] = {
    "POST /api/v1/intake-bots": {"name": "x", "fields": FIELDS},
    "POST /api/v1/intake-bots/{id}/submissions": {"data": {"name": "x"}},
    "POST /api/v1/webhooks": {"url": "https://example.test/", "events": ["submission.created"]},
    "POST /api/workflows": WORKFLOW,
    "POST /v1/actions/resolve": {"prompt": "refund the last invoice of nobody"},
    "POST /v1/chains": {"name": "x", "steps": [STEP]},
    "POST /v1/connectors": {"connector": "stripe", "name": "x"},
    "POST /v1/dead-letters/redrive": {},
    "POST /v1/forms": {"name": "x", "fields": FIELDS},
    "POST /v1/forms/{id}/submissions": {"data": {"name": "x"}},
    "POST /v1/jobs": {"name": "x", "step": STEP},
    "POST /v1/keys": {"name": "x", "scopes": ["read:runs"]},
    "POST /v1/webhooks": {"url": "https://example.test/"},
    "POST /v1/webhooks/test": {"url": NOWHERE, "event": "a.b", "payload": {}, "secret": "a secret of this test"},
    "POST /v1/workflows": WORKFLOW,
}


async def filled(api: ApiWorld, path: str) -> str:
    """The path with the name of a thing that was made for this."""
    kind, found, rest = path.partition("{id}")
    return path if not found else kind + await (OWN.get(kind) or MAKERS[kind])(api, kind) + rest


@pytest.mark.parametrize("route", POSTS, ids=[str(route) for route in POSTS])
async def test_a_post_is_done_once_under_its_key(api: ApiWorld, route: Guarded) -> None:
    path, body = await filled(api, route.path), await body_of(api, route)
    raw = b"" if body is None else orjson.dumps(body)
    headers = {"Idempotency-Key": secrets.token_hex(16)}

    async def ask(raw: bytes) -> Answer:
        return await api.ask("POST", path, raw=raw or None, headers=headers)

    first, again = await ask(raw), await ask(raw)
    assert first.status < 300 or str(route) in REFUSED, first.body
    assert "Idempotency-Replayed" not in first.headers
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    # Another request by its bytes, and one that could be done by its meaning.
    other = await ask(raw + b" " if raw else b"{}")
    assert (other.status, other.error["code"].upper()) == (409, "IDEMPOTENCY_CONFLICT"), other.body


async def test_an_answer_that_shows_a_secret_is_kept_sealed(api: ApiWorld) -> None:
    key = "a secret is shown once"
    made = await api.ask("POST", "/v1/webhooks", {"url": "https://example.test/"}, headers={"Idempotency-Key": key})
    kept = await api.value("SELECT body FROM control.idempotency_keys WHERE key = $1", key)
    assert kept.startswith(b"v1.")
    assert made.data["secret"].encode() not in kept


async def test_the_key_is_in_the_scope_of_the_api_key(api: ApiWorld) -> None:
    headers = {"Idempotency-Key": "the same for two"}
    body = {"name": "x", "step": STEP}
    mine = await api.ask("POST", "/v1/jobs", body, headers=headers)
    theirs = await api.ask("POST", "/v1/jobs", body, headers=headers, key=api.key_b)
    assert mine.data["id"] != theirs.data["id"]
    assert "Idempotency-Replayed" not in theirs.headers


async def test_an_answer_whose_key_left_the_ring_is_not_taken_for_no_answer(api: ApiWorld) -> None:
    key = secrets.token_hex(16)

    async def ask() -> Answer:
        body = {"name": "x", "step": STEP}
        return await api.ask("POST", "/v1/jobs", body, headers={"Idempotency-Key": key})

    assert (await ask()).status == 201
    await api.execute("UPDATE control.idempotency_keys SET body = 'v1.gone.AAAA' WHERE key = $1", key)
    again = await ask()
    assert (again.status, again.error["code"]) == (503, "UNAVAILABLE")
    assert "was done" in again.error["message"]


async def test_work_that_is_held_keeps_no_connection_and_its_repeat_waits(api: ApiWorld) -> None:
    """A dozen requests under keys of their own that wait for an endpoint leave the pool to others, and one that asks
    again meanwhile gets the first one's answer."""
    async with slow_endpoint() as (url, called, go_on):
        body = {"url": url, "event": "invoice.paid", "payload": {}, "secret": "a secret of some length"}
        keys = [secrets.token_hex(8) for _ in range(12)]

        async def test(key: str) -> Answer:
            return await api.ask("POST", "/v1/webhooks/test", body, headers={"idempotency-key": key})

        first = [asyncio.ensure_future(test(key)) for key in keys]

        await eventually(lambda: called() == len(keys), what="all are being sent")
        assert (await asyncio.wait_for(api.ask("GET", "/v1/jobs"), 2)).status == 200
        again = asyncio.ensure_future(test(keys[0]))
        go_on()
        answers = await asyncio.gather(*first)
        assert {answer.status for answer in answers} == {200}
        assert (await again).body == answers[0].body
        assert called() == len(keys), "nothing was sent twice"


@asynccontextmanager
async def slow_endpoint() -> AsyncIterator[tuple[str, Callable[[], int], Callable[[], None]]]:
    """An endpoint that answers when it is told to: its address, how often it was called, and the word."""
    count, go = 0, asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal count
        count += 1
        await go.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    try:
        yield f"http://127.0.0.1:{port}/", lambda: count, go.set
    finally:
        await runner.cleanup()
