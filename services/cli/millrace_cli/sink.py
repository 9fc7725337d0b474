"""The demo's own world outside: a server that receives webhooks and is called by jobs, and checks what it gets.

Webhooks are verified with the official `standardwebhooks` package, not with the platform's own code.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HOST = "127.0.0.1"


@dataclass
class Sink:
    """What came in, by event id. A repeat of a delivery is counted once."""

    url: str = ""
    secret: str = ""
    verified: dict[str, str] = field(default_factory=dict)
    """event id → webhook-id of what was delivered for it."""
    refused: Counter[str] = field(default_factory=Counter)
    job_calls: Counter[str] = field(default_factory=Counter)
    chain_calls: Counter[str] = field(default_factory=Counter)

    async def hook(self, request: web.Request) -> web.Response:
        """A webhook."""
        body = await request.read()
        try:
            Webhook(self.secret).verify(body, {name.lower(): value for name, value in request.headers.items()})
        except WebhookVerificationError as error:
            self.refused[str(error)] += 1
            return web.Response(status=401)
        self.verified[orjson.loads(body)["id"]] = request.headers["webhook-id"]
        return web.Response(status=204)

    async def job(self, request: web.Request) -> web.Response:
        """What the demo's job calls."""
        self.job_calls[(await request.json())["event"]] += 1
        return web.json_response({"taken": True})

    async def words(self, request: web.Request) -> web.Response:
        """What the second job of the chain calls: counts the words of a title."""
        asked = await request.json()
        self.chain_calls[asked["event"]] += 1
        return web.json_response({"words": len(asked["title"].split())})


@asynccontextmanager
async def serve() -> AsyncIterator[Sink]:
    """A sink on a free port of this machine."""
    sink = Sink()
    app = web.Application(client_max_size=4 * 1_048_576)
    app.router.add_post("/hook", sink.hook)
    app.router.add_post("/job", sink.job)
    app.router.add_post("/words", sink.words)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        sink.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield sink
    finally:
        await runner.cleanup()
