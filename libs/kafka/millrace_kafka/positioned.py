"""Reading as one of a group whose positions are kept elsewhere: the projector's way, positions in Postgres.

One consumer only holds the membership (all its partitions paused, nothing ever committed), another reads what the
membership assigned, from positions the caller gives. There is no hand-over: the caller's own compare and set of the
positions decides who writes, so after a change of assignment an old owner may go on reading and loses nothing but time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from millrace_core.errors import Retry
from millrace_core.record import Received
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.feed import Part
from millrace_kafka.reader import Reader

FETCH_WAIT_MS = 50


class PositionedConsumer:
    """A member of `group` over `topics` (catalogue names). Used by one task. `async with PositionedConsumer(…)`.

    `instance` makes the membership static: a quick restart moves no partition."""

    def __init__(self, cluster: Cluster, *, group: str, topics: Sequence[str], instance: str | None = None) -> None:
        self._cluster = cluster
        self._group = group
        self._topics = tuple(topics)
        self._instance = instance
        self._member: AIOKafkaConsumer | None = None
        self.reader = Reader(cluster, read_committed=True, fetch_wait_ms=FETCH_WAIT_MS)
        """For `ends`, `starts` and `position`; its assignment is this class's."""
        self.owned: frozenset[Part] = frozenset()
        """What the group assigned. Whenever `generation` has changed the caller looks here and calls `assign`."""
        self.generation = 0
        self._assigned: frozenset[Part] = frozenset()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Join the group and connect. Raises Retry, leaving nothing open, when the broker is away or a topic is not
        there yet (a member would hear of it minutes later)."""
        await self.reader.start()
        member = clients.member(self._cluster, group=self._cluster.group(self._group), instance=self._instance)
        self._member = member
        member.subscribe([self._cluster.topic(name) for name in self._topics], listener=_Assignment(self, member))
        try:
            await self.reader.partitions(self._topics)
            await clients.start(member)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave and close. Safe to repeat."""
        if self._member is not None:
            member, self._member = self._member, None
            await clients.close(member)
        await self.reader.stop()

    def check(self) -> None:
        """Raises Retry when the membership is beyond repair (another process took its name, no permission)."""
        if self._member is None:
            raise Retry("not a member of the group")
        try:
            self._member._coordinator.check_errors()
        except KafkaError as error:
            raise Retry(f"no longer a member of the group: {clients.describe(error)}") from error

    def assign(self, positions: Mapping[Part, int]) -> None:
        """Read these partitions from these positions on."""
        self.reader.assign(positions)
        self._assigned = frozenset(positions)

    async def poll(self, *, timeout_s: float, max_records: int) -> list[Received]:
        """The next records of what is assigned, in offset order within each partition. Raises OffLog or Retry."""
        if not self._assigned:
            await asyncio.sleep(timeout_s)
            return []
        return await self.reader.poll(timeout_s=timeout_s, max_records=max_records)

    def moved(self, known: Mapping[Part, int]) -> dict[Part, int]:
        """The reader's positions that differ from the known ones: past records, markers and aborted records."""
        now = {part: self.reader.position(part) for part in self._assigned}
        return {part: offset for part, offset in now.items() if known.get(part) != offset}

    def place(self, record: Received) -> Part:
        """Where a record stands, by the catalogue's name."""
        return self._cluster.short(record.topic), record.partition

    def behind(self, part: Part) -> int:
        """How many offsets lie between the reader's position and the end the broker last told; 0 when unknown."""
        state = self._state(part)
        if state is None or state.highwater is None or not state.has_valid_position:
            return 0
        return max(0, int(state.highwater) - int(state.position))

    def _state(self, part: Part) -> Any:
        if part not in self._assigned:
            return None
        assignment = self.reader.feed.live._subscription.subscription.assignment
        return assignment.state_value(TopicPartition(self._cluster.topic(part[0]), part[1]))


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Takes what the group assigns. The member reads none of it: paused, and sought so that it asks for no position."""

    def __init__(self, owner: PositionedConsumer, member: AIOKafkaConsumer) -> None:
        self._owner = owner
        self._member = member

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Nothing: see the module."""

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        for partition in assigned:
            self._member.pause(partition)
            self._member.seek(partition, 0)
        cluster = self._owner._cluster
        self._owner.owned = frozenset((cluster.short(tp.topic), tp.partition) for tp in assigned)
        self._owner.generation += 1
