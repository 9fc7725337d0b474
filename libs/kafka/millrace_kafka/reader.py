"""Reading a stretch of the log for its own sake: tools, projector, rebuild, verify. No group, no positions, no resets.

Records come in offset order within a partition. A position outside the log raises `OffLog`, it is never moved silently.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.record import Received
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.feed import Feed
from millrace_kafka.feed import OffLog as OffLog
from millrace_kafka.feed import Part as Part


class Moment(NamedTuple):
    """Where a record stands in its partition, and the broker's time on it."""

    offset: int
    timestamp: int


class Reader:
    """A consumer over chosen partitions. One task uses it at a time. `async with Reader(cluster) as reader`."""

    def __init__(self, cluster: Cluster, *, read_committed: bool = True, fetch_wait_ms: int = 100) -> None:
        self._cluster = cluster
        self.feed = Feed(cluster, read_committed=read_committed, fetch_wait_ms=fetch_wait_ms)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect; raises Retry when the broker is away."""
        await self.feed.start()

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        await self.feed.stop()

    async def partitions(self, topics: Iterable[str]) -> list[Part]:
        """All partitions of these catalogue topics. Raises Retry for a topic that does not exist."""
        found: list[Part] = []
        for name in topics:
            numbers = await clients.within(
                self.feed.live._client._wait_on_metadata(self._cluster.topic(name)),
                limits.PRODUCE_TIMEOUT_S * 2,
                f"{self._cluster.topic(name)} cannot be found",
            )
            found += [(name, number) for number in sorted(numbers)]
        return found

    async def ends(self, parts: Iterable[Part]) -> dict[Part, int]:
        """The end of each partition as this reader can see it: a reader that has passed it has read what was there.
        On a reader that is in a long poll this waits behind the poll: ask another one."""
        asked = {self.feed.tp(part): part for part in parts}
        ends = await clients.within(self.feed.live.end_offsets(list(asked)), limits.PRODUCE_TIMEOUT_S, "no ends")
        return {asked[tp]: offset for tp, offset in ends.items()}

    async def starts(self, parts: Iterable[Part]) -> dict[Part, int]:
        """The first offset each partition still holds."""
        asked = {self.feed.tp(part): part for part in parts}
        starts = await clients.within(
            self.feed.live.beginning_offsets(list(asked)), limits.PRODUCE_TIMEOUT_S, "no starts"
        )
        return {asked[tp]: offset for tp, offset in starts.items()}

    async def first_at(self, parts: Iterable[Part], ms: int) -> dict[Part, Moment | None]:
        """The first record of each partition that the broker took at this time or later, as far as this reader can
        see; None where there is none."""
        asked = {self.feed.tp(part): part for part in parts}
        found = await clients.within(
            self.feed.live.offsets_for_times(dict.fromkeys(asked, ms)), limits.PRODUCE_TIMEOUT_S, "no offsets by time"
        )
        return {asked[tp]: None if at is None else Moment(at.offset, at.timestamp) for tp, at in found.items()}

    def assign(self, positions: Mapping[Part, int]) -> None:
        """Read from these positions on; replaces what was assigned before."""
        self.feed.set(positions)

    async def poll(self, *, timeout_s: float = 0.25, max_records: int = 5_000) -> list[Received]:
        """The next records, in offset order within each partition; empty when the time is over. Raises OffLog when a
        position is outside the log, Retry when the broker is away."""
        batches = await self.feed.poll(timeout_s=timeout_s, max_records=max_records)
        return [record for records in batches.values() for record in records]

    def position(self, part: Part) -> int:
        """The next offset that will be looked at. Unlike the last record's it also passes transaction markers and
        records that were aborted or compacted away."""
        return self.feed.position(part)

    def behind(self, part: Part) -> int:
        """How many offsets lie between the position and the end that the last fetch saw."""
        return self.feed.end(part) - self.feed.position(part)

    async def read(
        self, start: Mapping[Part, int], end: Mapping[Part, int], *, max_records: int = 5_000
    ) -> AsyncIterator[Sequence[Received]]:
        """Everything from `start` (included) up to `end` (left out) of each partition, in batches. Ends when all ends
        are passed; Retry when nothing moves for the produce time-out."""
        todo = {part: end[part] for part in start if start[part] < end[part]}
        if not todo:
            return
        self.assign({part: start[part] for part in todo})
        loop = asyncio.get_running_loop()
        moved, before = loop.time(), -1
        while True:
            records = await self.poll(max_records=max_records)
            kept = [r for r in records if r.offset < todo[self._cluster.short(r.topic), r.partition]]
            if kept:
                yield kept
            at = {part: self.position(part) for part in todo}
            if all(at[part] >= offset for part, offset in todo.items()):
                return
            if sum(at.values()) != before:
                moved, before = loop.time(), sum(at.values())
            elif loop.time() - moved > limits.PRODUCE_TIMEOUT_S:
                raise Retry(f"reading stands still at {at}")


async def read_all(cluster: Cluster, topics: Iterable[str], *, read_committed: bool = True) -> list[Received]:
    """Everything that stands on these topics now. For tools and tests: it holds all of it in memory."""
    found: list[Received] = []
    async with Reader(cluster, read_committed=read_committed) as reader:
        parts = await reader.partitions(topics)
        async for batch in reader.read(await reader.starts(parts), await reader.ends(parts)):
            found += batch
    return found
