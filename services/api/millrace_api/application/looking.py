"""The loop of a worker that looks for what is left to do and does it, again and again."""

import asyncio
from collections.abc import Awaitable, Callable

from millrace_api.application.problems import Problem
from millrace_core.errors import Retry
from millrace_core.restart import pause


async def keep_looking(
    look: Callable[[], Awaitable[None]], stop: asyncio.Event, *, every_s: float, delayed: Callable[[str], object]
) -> None:
    """Until `stop`. A Postgres or log that is away only delays it, and `delayed` hears why: what `look` does must be
    safe to repeat."""
    while not stop.is_set():
        try:
            await look()
        except (Problem, Retry) as problem:
            delayed(str(problem))
        await pause(stop, every_s)
