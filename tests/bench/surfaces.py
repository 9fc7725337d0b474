"""Reads and writes of the API at a rate, each surface in turn: how long an answer takes beside everything else.

A write is answered when it is in force, or on the log. Nothing bare stands beside it: the bars are the figures.
"""

import json
import secrets
from collections.abc import Callable, Sequence

import aiohttp

from millrace_cli import bootstrap
from millrace_core.credentials import parse_pepper
from millrace_core.keyring import KeyRing
from tests.bench.load import paced, request
from tests.bench.report import Figure, figure, percentile
from tests.bench.stack import Stack
from tests.support.platform import SERVICES, Platform

READS_P95_MS, WRITES_P95_MS = 30, 60
Make = Callable[[int], bytes]
OWN = "a name of its own"


async def run(stack: Stack, *, rate: float, seconds: float) -> list[Figure]:
    """p95 of reads and of writes over all surfaces, `rate` requests a second of each kind in turn."""
    platform = await stack.platform()
    key = await _key(platform)
    for name in SERVICES:
        platform.start(name)
    try:
        await platform.ready(timeout_s=90)
        port = platform.running["api"].http_port
        assert port is not None
        form = await _form(port, key)
        await _timed(port, [*_reads(key, form), *_writes(key, form)], rate=rate, seconds=min(5.0, seconds))
        found = {
            "reads": (await _timed(port, _reads(key, form), rate=rate, seconds=seconds), READS_P95_MS),
            "writes": (await _timed(port, _writes(key, form), rate=rate, seconds=seconds), WRITES_P95_MS),
        }
    finally:
        platform.stop()
    return [
        figure(f"p95 of {kind} at {rate:g}/s, all surfaces", "ms", percentile(ms, 0.95), bar=bar, better="less")
        for kind, (ms, bar) in found.items()
    ]


async def _timed(port: int, makes: Sequence[Make], *, rate: float, seconds: float) -> list[float]:
    """Milliseconds of each answer. Raises RuntimeError when one was refused: that is another measurement."""
    answers, _ = await paced(
        "127.0.0.1", port, lambda n: makes[n % len(makes)](n), rate=rate, seconds=seconds, connections=64
    )
    if answers.refused:
        raise RuntimeError(f"{answers.refused} requests were refused, the last with {answers.last_refusal!r}")
    return [took * 1000 for took in answers.latency_s]


def _reads(key: str, form: str) -> list[Make]:
    paths = (
        *("/v1/events", "/v1/runs", "/v1/deliveries", "/v1/subscriptions", "/v1/workflows", "/v1/executions"),
        *("/v1/forms", f"/v1/forms/{form}/submissions", "/api/v1/intake-bots", f"/api/v1/intake-bots/{form}"),
        *("/v1/tickets", "/v1/connectors", "/v1/webhooks", "/v1/credentials"),
    )
    return [_get(path, key) for path in paths]


def _writes(key: str, form: str) -> list[Make]:
    posted: dict[str, dict[str, object]] = {
        "/v1/workflows": {"name": "bench", "nodes": [], "edges": []},
        "/v1/webhooks": {"url": "https://example.com/hook", "events": ["workflow.executed"]},
        "/v1/credentials": {"name": OWN, "type": "api_key", "value": "not a secret"},
        f"/v1/forms/{form}/submissions": {"data": {"name": "Jane Doe"}},
        f"/api/v1/intake-bots/{form}/submissions": {"data": {"name": "Jane Doe"}},
    }
    return [_post(path, key, body) for path, body in posted.items()]


def _get(path: str, key: str) -> Make:
    whole = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    return lambda _: whole


def _post(path: str, key: str, body: object) -> Make:
    text = json.dumps(body)
    run = secrets.token_hex(4)  # of this list of writes: the one before it counted from 0 too
    return lambda n: request(path, text.replace(OWN, f"bench-{run}-{n}").encode(), key)


async def _key(platform: Platform) -> str:
    seals = bootstrap.Seals(platform.postgres, parse_pepper(platform.pepper), KeyRing.parse(platform.key_ring))
    wanted = bootstrap.Wanted("bench", "automation")
    return (await bootstrap.create_key(seals, account="bench", plan="enterprise", wanted=wanted)).key


async def _form(port: int, key: str) -> str:
    """A published form that takes a name."""
    body = {"name": "bench", "fields": [{"name": "name", "type": "text", "required": True}]}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}) as session,
        session.post("/v1/forms", json=body) as answer,
    ):
        answer.raise_for_status()
        return str((await answer.json())["data"]["id"])
