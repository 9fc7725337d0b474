"""Who owns which partitions: one consumer that only holds a membership, all its partitions paused.

Range assignment, so that partitions of one number of all topics go to one member (round robin split 12 of 12 pairs
among 5 members); static membership, so that a quick restart moves nothing; sessions of 6 s. Positions are committed
through it, with the member's generation: a member that was away too long is refused. Not here: any reading.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from millrace_core import limits
from millrace_core.errors import Retry, Stale
from millrace_core.restart import backoff_s, pause
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.feed import Part
from millrace_kafka.observer import Observer, Silent

log = logging.getLogger(__name__)

CHECK_S = 0.5
# The first assignment may wait for the session of a member that died without leaving.
JOIN_S_MAX = limits.SESSION_TIMEOUT_S * 5

Assigned = Callable[[frozenset[Part]], None]
Revoked = Callable[[frozenset[Part]], Awaitable[None]]


class Membership:
    """`on_assigned` is told the whole new assignment and must not block. `on_revoked` is awaited before the group goes
    on without this member, so it has less than the session time-out; within it commits still count."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        topics: Sequence[str],
        instance: str | None,
        on_assigned: Assigned,
        on_revoked: Revoked,
        observer: Observer | None = None,
        assignors: tuple[Any, ...] = (RangePartitionAssignor,),
        session_timeout_s: float = limits.SESSION_TIMEOUT_S,
    ) -> None:
        self._cluster = cluster
        self._group = cluster.group(group)
        self._topics = tuple(topics)
        self._instance = instance
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._observer = observer or Silent()
        self._assignors = assignors
        self._session_timeout_s = session_timeout_s
        self._member: AIOKafkaConsumer | None = None
        self.owned: frozenset[Part] = frozenset()
        self.generation = 0
        """Counts assignments, as this process saw them."""

    async def run(self, stop: asyncio.Event) -> None:
        """Be a member until `stop`; then give everything back and leave. Joins again after any failure."""
        attempt = 0
        try:
            while not stop.is_set():
                try:
                    await self._join()
                    attempt = 0
                    await self._hold(stop)
                except Retry as error:
                    self._observer.restarted(f"membership of {self._group}", str(error))
                    await self._leave()
                    await pause(stop, backoff_s(attempt))
                    attempt += 1
        finally:
            await self._leave()

    async def _join(self) -> None:
        fresh = clients.member(
            self._cluster,
            group=self._group,
            instance=self._instance,
            assignors=self._assignors,
            session_timeout_s=self._session_timeout_s,
        )
        fresh.subscribe([self._cluster.topic(name) for name in self._topics], listener=_Listener(self, fresh))
        self._member = fresh
        await clients.start(fresh, timeout_s=JOIN_S_MAX)

    async def _hold(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                self._live._coordinator.check_errors()
            except KafkaError as error:
                raise Retry(f"no longer a member of {self._group}: {clients.describe(error)}") from error
            await pause(stop, CHECK_S)

    async def _leave(self) -> None:
        await self._revoked()
        if self._member is not None:
            member, self._member = self._member, None
            await clients.close(member)

    async def _revoked(self) -> None:
        if self.owned:
            owned, self.owned = self.owned, frozenset()
            await self._on_revoked(owned)

    def _assigned(self, owned: frozenset[Part]) -> None:
        self.owned = owned
        self.generation += 1
        self._on_assigned(owned)

    async def commit(self, positions: Mapping[Part, tuple[int, str]]) -> None:
        """Commit (offset, metadata) of partitions. Stale: they may be another member's by now. Retry: nobody knows."""
        if not positions:
            return
        offsets = {
            TopicPartition(self._cluster.topic(topic), number): OffsetAndMetadata(offset, metadata)
            for (topic, number), (offset, metadata) in positions.items()
        }
        try:
            async with asyncio.timeout(limits.PRODUCE_TIMEOUT_S):
                await self._live.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            raise Stale(f"the group {self._group} went on without this member") from error
        except (KafkaError, TimeoutError) as error:
            raise Retry(f"positions of {self._group} were not committed: {clients.describe(error)}") from error

    def ready(self) -> str | None:
        """None when this process is a member."""
        return None if self._member is not None and self.generation else f"not yet a member of {self._group}"

    @property
    def _live(self) -> AIOKafkaConsumer:
        if self._member is None:
            raise Stale(f"not a member of {self._group}")
        return self._member


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hears of one consumer's assignments; those of a consumer that was given up are not passed on."""

    def __init__(self, owner: Membership, member: AIOKafkaConsumer) -> None:
        self._owner = owner
        self._member = member

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        if self._owner._member is self._member:
            await self._owner._revoked()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        for partition in assigned:
            # Sought, so that it asks for no position it may not have; paused, so that it fetches nothing.
            self._member.seek(partition, 0)
            self._member.pause(partition)
        if self._owner._member is self._member:
            short = self._owner._cluster.short
            self._owner._assigned(frozenset((short(tp.topic), tp.partition) for tp in assigned))
