"""What is posted to a connection's address: counted before anything is read or looked up for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Request
from starlette.types import Message

from millrace_api.application.api import Api
from millrace_api.application.problems import NotFound
from millrace_api.surfaces.ops.routes.inbound import receive_webhook
from millrace_core.clock import ManualClock
from millrace_web.errors import ApiError
from millrace_web.rate_limits import RateLimits


class Empty:
    """An API whose database holds nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.bodies = 0
        self.open_rate = RateLimits(ManualClock())
        api = SimpleNamespace(
            database=self, connecting=None, keys=SimpleNamespace(ring=None), egress=(), clock=ManualClock()
        )
        self._api = cast(Api, api)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Any]:
        self.asked += 1
        yield self

    async def fetchrow(self, *_: object) -> None:
        return None

    async def receive(self) -> Message:
        self.bodies += 1
        return {"type": "http.request", "body": b"{}"}

    async def post(self, public_id: str) -> int:
        app = SimpleNamespace(state=SimpleNamespace(open_rate=self.open_rate))
        scope = {"type": "http", "method": "POST", "headers": [], "query_string": b"", "app": app}
        try:
            await receive_webhook(public_id, Request(scope, self.receive), self._api)
        except NotFound:
            return 404
        except ApiError as error:
            return error.status
        pytest.fail("nothing is there")


async def test_over_its_rate_nothing_is_read_or_looked_up() -> None:
    api = Empty()
    statuses = [await api.post(f"cn_{'0' * 32}") for _ in range(650)]
    assert statuses == [404] * 600 + [429] * 50
    assert (api.asked, api.bodies) == (600, 600)


async def test_an_address_has_a_rate_of_its_own() -> None:
    api = Empty()
    for _ in range(601):
        await api.post(f"cn_{'0' * 32}")
    await api.post(f"cn_{'1' * 32}")
    assert api.asked == 601
