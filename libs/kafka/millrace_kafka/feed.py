"""Records of a changing set of partitions, for a processor: one consumer by `assign`, no group, no resets.

A consumer that is in a group may hang in `getmany` while partitions are revoked, so membership (`membership`) and
reading are two consumers. One task polls; partitions may be set, paused and resumed from any task of the loop.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from millrace_core import limits
from millrace_core.errors import MillraceError, Retry
from millrace_core.record import Received
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster

Part = tuple[str, int]
"""A partition: catalogue name of the topic, and its number."""


class OffLog(MillraceError):
    """A position lies outside the log: the records at it were deleted, or the topic was made anew."""

    def __init__(self, parts: Iterable[Part], detail: str = "") -> None:
        super().__init__(f"{OffLog.__doc__}{' ' + detail if detail else ''}")
        self.parts = tuple(parts)


class Feed:
    """See the module. `start` raises Retry when the broker is away; after any Retry of `poll` it can go on."""

    def __init__(self, cluster: Cluster, *, read_committed: bool, fetch_wait_ms: int = clients.FETCH_WAIT_MS) -> None:
        self._cluster = cluster
        self._read_committed = read_committed
        self._fetch_wait_ms = fetch_wait_ms
        self._consumer: AIOKafkaConsumer | None = None
        self._parts: dict[TopicPartition, Part] = {}
        self._paused: set[Part] = set()

    async def start(self) -> None:
        fresh = clients.consumer(self._cluster, read_committed=self._read_committed, fetch_wait_ms=self._fetch_wait_ms)
        await clients.start(fresh)
        self._consumer = fresh

    async def stop(self) -> None:
        """Close. Safe to repeat."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await clients.close(consumer)

    @property
    def parts(self) -> frozenset[Part]:
        """What is being read."""
        return frozenset(self._parts.values())

    def set(self, positions: Mapping[Part, int]) -> None:
        """Read these partitions from these positions on, and no others. What was paused is so no longer."""
        self._paused.clear()
        if not positions:
            # An empty assignment would make the client follow the metadata of every topic of the broker.
            self.pause(self._parts.values())
            self._parts = {}
            return
        self._parts = {self.tp(part): part for part in positions}
        self.live.assign(list(self._parts))
        for tp, part in self._parts.items():
            self.live.seek(tp, positions[part])

    def drop(self, part: Part) -> None:
        """Read one partition no longer; the others go on from where they are."""
        self.set({other: self.position(other) for other in self._parts.values() if other != part})

    def pause(self, parts: Iterable[Part]) -> None:
        for part in tuple(parts):
            if self.tp(part) in self._parts and part not in self._paused:
                self._paused.add(part)
                self.live.pause(self.tp(part))

    def resume(self, parts: Iterable[Part]) -> None:
        for part in tuple(parts):
            if part in self._paused:
                self._paused.discard(part)
                self.live.resume(self.tp(part))

    def position(self, part: Part) -> int:
        """The next offset to be looked at: it passes transaction markers and what was compacted away, too."""
        return int(self._state(part).position)

    def end(self, part: Part) -> int:
        """The end of the partition as the last fetch saw it, or the position when nothing was fetched yet."""
        state = self._state(part)
        known = state.lso if self._read_committed else state.highwater
        return max(int(known) if known is not None else 0, int(state.position))

    def _state(self, part: Part) -> Any:
        return self.live._subscription.subscription.assignment.state_value(self.tp(part))

    async def poll(self, *, timeout_s: float, max_records: int) -> dict[Part, list[Received]]:
        """The next records by partition, in offset order; empty when the time is over or nothing is assigned. Raises
        OffLog with the partitions it concerns, and Retry."""
        if not self._parts:
            await asyncio.sleep(timeout_s)
            return {}
        try:
            async with asyncio.timeout(timeout_s + limits.PRODUCE_TIMEOUT_S):
                found = await self.live.getmany(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            raise OffLog(self._parts_of(error), clients.describe(error)) from error
        except (KafkaError, TimeoutError) as error:
            raise Retry(f"the log could not be read: {clients.describe(error)}") from error
        return {self._parts[tp]: records for tp, records in found.items() if tp in self._parts}

    def _parts_of(self, error: KafkaError) -> list[Part]:
        about = error.args[0] if error.args else ()
        tps = list(about) if isinstance(about, dict) else [about]
        return [self._parts[tp] for tp in tps if tp in self._parts]

    def tp(self, part: Part) -> TopicPartition:
        return TopicPartition(self._cluster.topic(part[0]), part[1])

    @property
    def live(self) -> AIOKafkaConsumer:
        """The consumer, for questions (ends, metadata)."""
        if self._consumer is None:
            raise Retry("the feed is not started")
        return self._consumer
