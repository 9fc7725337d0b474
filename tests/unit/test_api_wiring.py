"""The order in which the API ends."""

import asyncio

from millrace_api.wiring import served_first
from tests.support.waiting import eventually


async def test_what_stands_behind_the_server_ends_after_its_last_request() -> None:
    told: list[str] = []
    last_request, stop = asyncio.Event(), asyncio.Event()

    async def serve(stop: asyncio.Event) -> None:
        await stop.wait()
        told.append("http")
        await last_request.wait()
        told.append("answered")

    async def relay(stop: asyncio.Event) -> None:
        await stop.wait()
        told.append("relay")

    async with asyncio.TaskGroup() as tasks:
        for worker in served_first(serve, relay=relay).values():
            tasks.create_task(worker(stop))  # type: ignore[arg-type]
        stop.set()
        await eventually(lambda: told == ["http"])
        last_request.set()
    assert told == ["http", "answered", "relay"]
