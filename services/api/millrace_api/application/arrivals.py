"""Read your writes: wait until the read models hold what was on the log when the caller asked.

A caller who shows the position of his write waits for that position. A caller who asks for an id that is not there
waits for the ends of `events`, `run-commands` and `deliveries` as they are at that moment, so a made-up id costs no
more than a real one: all who wait share one question to the broker and one to Postgres every 10 ms.
Nobody waits longer than 2 s, and nobody holds a connection while waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from millrace_api.application.sharing import Shared
from millrace_core import limits

Part = tuple[str, int]
"""A partition: the topic's catalogue name, and its number."""

Offsets = Mapping[Part, int]
TOPICS = ("events", "run-commands", "deliveries")
"""What rows are made of that somebody could ask for before they are there."""

PROJECTED = frozenset(
    {
        *TOPICS,
        "deliveries-overflow",
        "deliveries-tx",
        "delivery-facts",
        "event-facts",
        "run-commands-tx",
        "run-facts",
        "dead-letters",
        "dead-letters-tx",
        "receipt-leaves",
        "receipt-roots",
        "audit",
    }
)
"""What read models are made of. A position on another topic (`control`: its tables are written first) is passed."""


class Arrivals:
    """Answers when the read models have come far enough."""

    def __init__(
        self,
        *,
        ends: Callable[[], Awaitable[Offsets]],
        reached: Callable[[], Awaitable[Offsets]],
        wait_s: float = limits.READ_YOUR_WRITES_S_MAX,
    ) -> None:
        """`ends` asks the broker where TOPICS end, `reached` asks Postgres which offset is projected next."""
        self._ends = Shared(ends)
        self._reached = Shared(reached)
        self._wait_s = wait_s

    async def run(self, stop: asyncio.Event) -> None:
        """The worker: both questions, for as long as anybody asks."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ends.run(stop))
            group.create_task(self._reached.run(stop))

    async def caught_up(self) -> bool:
        """Wait until all that stands on the log now is in the read models; False when that took too long."""
        return await self._within(self._pass_the_ends)

    async def passed(self, positions: Mapping[Part, int]) -> bool:
        """Wait until the records at these positions are in the read models; False when that took too long."""
        return await self._within(lambda: self._pass({part: offset + 1 for part, offset in positions.items()}))

    async def _within(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            async with asyncio.timeout(self._wait_s):
                await work()
        except TimeoutError:
            return False
        return True

    async def _pass_the_ends(self) -> None:
        await self._pass({part: end for part, end in (await self._ends.get()).items() if end > 0})

    async def _pass(self, targets: Mapping[Part, int]) -> None:
        awaited = {part: target for part, target in targets.items() if part[0] in PROJECTED}
        while awaited:
            reached = await self._reached.get()
            if all(reached.get(part, 0) >= target for part, target in awaited.items()):
                return
