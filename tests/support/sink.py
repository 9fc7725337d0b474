"""Where webhooks and http steps of a running Millrace arrive. Signatures are checked with the official library."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request, its body read as JSON."""

    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes


@dataclass
class Sink:
    """`secrets` says which paths are webhooks; `refuse` how many requests of a path get a 500 before any is taken;
    `gone` which paths answer 410; `answers` what else a path answers."""

    url: str = ""
    secrets: dict[str, str] = field(default_factory=dict)
    refuse: Counter[str] = field(default_factory=Counter)
    gone: set[str] = field(default_factory=set)
    answers: dict[str, Any] = field(default_factory=dict)
    arrived: dict[str, list[Arrived]] = field(default_factory=lambda: defaultdict(list))
    places: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Where the webhooks of an event arrived."""
    forged: int = 0

    async def take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        path = request.path
        if secret := self.secrets.get(path):
            try:
                Webhook(secret).verify(raw, dict(request.headers))
            except Exception:
                self.forged += 1
                return web.Response(status=400)
        arrived = Arrived(path, request.headers, orjson.loads(raw or b"null"), raw)
        self.arrived[path].append(arrived)
        if "webhook-id" in request.headers:
            self.places[arrived.body["id"]].append(path)
        if path in self.gone:
            return web.Response(status=410)
        if self.refuse[path] > 0:
            self.refuse[path] -= 1
            return web.Response(status=500, text="not yet")
        return web.json_response(self.answers.get(path, {"ok": True}))

    def events_at(self, path: str) -> list[str]:
        """The ids of the events whose webhooks arrived here, in their order."""
        return [one.body["id"] for one in self.arrived[path]]


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """A sink that listens as long as the block."""
    made = Sink()
    app = web.Application(client_max_size=4 << 20)
    app.router.add_route("*", "/{path:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        await runner.cleanup()
