"""Closing a consumer: what its library does to itself on the way must not end whoever closes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from millrace_kafka import client as clients


class Closing:
    """A consumer, as far as `close` knows one."""

    def __init__(self, stop: Callable[[], Awaitable[Any]]) -> None:
        self.stop = stop
        self.is_closed = False

    @property
    def _client(self) -> "Closing":
        return self

    async def close(self) -> None:
        self.is_closed = True


async def test_a_cancellation_of_the_library_s_own_ends_nobody() -> None:
    async def await_what_was_cancelled() -> None:
        fetch = asyncio.ensure_future(asyncio.sleep(3600))
        fetch.cancel()
        await fetch

    consumer = Closing(await_what_was_cancelled)
    await clients.close(consumer)
    assert consumer.is_closed


async def test_our_own_cancellation_goes_through() -> None:
    began = asyncio.Event()

    async def take_long() -> None:
        began.set()
        await asyncio.sleep(3600)

    closing = asyncio.ensure_future(clients.close(Closing(take_long)))
    await began.wait()
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
