"""How long to wait before something is begun again."""

import asyncio
import contextlib

from millrace_core import limits


def backoff_s(attempt: int) -> float:
    """The wait before attempt `attempt` + 1 (0 = after the first failure)."""
    return limits.RESTART_BACKOFF_S[min(attempt, len(limits.RESTART_BACKOFF_S) - 1)]


async def pause(event: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until the event is set: most often that the process shall stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
