"""Wait for a condition with a bound. The only way a test may wait for something it cannot await."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")

WAIT_S = 10.0
EVERY_S = 0.02


@overload
async def eventually(
    check: Callable[[], Awaitable[T]], *, timeout_s: float = ..., every_s: float = ..., what: str = ...
) -> T: ...


@overload
async def eventually(check: Callable[[], T], *, timeout_s: float = ..., every_s: float = ..., what: str = ...) -> T: ...


async def eventually(
    check: Callable[[], Any], *, timeout_s: float = WAIT_S, every_s: float = EVERY_S, what: str = ""
) -> Any:
    """The first true value `check` gives. `check` may be a coroutine function; what it raises means 'not yet', since
    what is not there yet can be asserted, unpacked or looked into. What it said last stands in the error when the time
    is over, with its traceback."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        last: object
        try:
            found = check()
            value = await found if inspect.isawaitable(found) else found
            if value:
                return value
            last = value
        except Exception as error:
            last = error
        if loop.time() >= deadline:
            why = last if isinstance(last, Exception) else None
            raise AssertionError(
                f"{what or 'the condition'} did not hold within {timeout_s} s; last: {last!r}"
            ) from why
        await asyncio.sleep(every_s)
