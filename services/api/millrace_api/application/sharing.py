"""One question for all who want its answer: the waiting room in front of the broker and of Postgres."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from millrace_api.application.problems import Unavailable
from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.restart import pause

T = TypeVar("T")
ANSWER_S_MAX = 2.0


class Shared(Generic[T]):
    """Asks at most once every `every_s`, and only while somebody waits. An answer was always asked for after those it
    is given to came."""

    def __init__(self, ask: Callable[[], Awaitable[T]], *, every_s: float = limits.POSITION_READ_EVERY_S) -> None:
        self._ask = ask
        self._every_s = every_s
        self._waiting: list[asyncio.Future[T]] = []
        self._wanted = asyncio.Event()

    async def get(self) -> T:
        """The answer. Raises Unavailable when nobody could give one."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        return await future

    async def run(self, stop: asyncio.Event) -> None:
        """The worker."""
        while not stop.is_set():
            await _either(self._wanted, stop)
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            if waiting:
                await self._answer(waiting)
                await pause(stop, self._every_s)
        for future in self._waiting:
            _fail(future, Unavailable("The API is shutting down. Try again."))

    async def _answer(self, waiting: list[asyncio.Future[T]]) -> None:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                answer = await self._ask()
        except (Retry, Unavailable, TimeoutError):
            for future in waiting:
                _fail(future, Unavailable("How far things are cannot be told right now. Try again shortly."))
            return
        for future in waiting:
            if not future.done():
                future.set_result(answer)


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _fail(future: "asyncio.Future[T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
