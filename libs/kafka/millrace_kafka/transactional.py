"""The transactional processor (orchestrator, scheduler): each input record's effects exactly once, whatever dies.

One task for each input partition number holds all co-partitioned inputs of that number, with a producer and a consumer
of its own (`transaction_task`). This module holds the group's membership: one further consumer, all its partitions
paused, with the range assignor (the default one splits co-partitioned inputs among members) and a static name, so that
a quick restart moves nothing. A task starts when all its inputs are assigned; a revocation lets it finish its open
batch and parks it warm, and the broker's fence tells if another had the partition meanwhile.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_core.restart import backoff_s, pause
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.store import StateStores
from millrace_kafka.transaction import Transactions
from millrace_kafka.transaction_task import Handler, Setup, Task

CHECK_S = 0.5


class TransactionalProcessor(Generic[Handler]):
    """A member of `group` over `inputs`, which must have one partition count. `handler(number)` makes a task's handler,
    anew for each of its lives. `view` is waited for where records carry a control position."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        inputs: Sequence[str],
        changelog: str,
        handler: Callable[[int], Handler],
        store: StateStores,
        clock: Clock,
        read_back: Sequence[str] = (),
        view: ControlView | None = None,
        observer: Observer | None = None,
        instance: str | None = None,
        assignors: tuple[Any, ...] = (RangePartitionAssignor,),
        transactions: type[Transactions] = Transactions,
    ) -> None:
        self._cluster = cluster
        self._inputs = tuple(inputs)
        self._instance = f"{group}-{instance}" if instance else None
        self._assignors = assignors
        self._observer = observer or Silent()
        self._setup = Setup(
            cluster=cluster,
            group=group,
            inputs=self._inputs,
            changelog=changelog,
            read_back=tuple(read_back),
            handler=handler,
            stores=store,
            clock=clock,
            observer=self._observer,
            view=view,
            transactions=transactions,
        )
        self._tasks: dict[int, tuple[Task[Handler], asyncio.Task[None]]] = {}
        self._owned: frozenset[int] = frozenset()
        self._why_not: str | None = "not a member of the group yet"
        self.split: frozenset[int] = frozenset()
        """Partition numbers of which some inputs are ours and some another's. Empty with the range assignor."""

    def ready(self) -> str | None:
        """None when the group gave its assignment and every task of ours lives."""
        if self._why_not is not None:
            return self._why_not
        waiting = {n: reason for n, (task, _) in self._tasks.items() if (reason := task.ready())}
        return "; ".join(f"{self._setup.group} {n}: {reason}" for n, reason in sorted(waiting.items())) or None

    @property
    def living(self) -> list[Handler]:
        """The handlers that are loaded and at work, of the partitions that are ours."""
        mine = [self._tasks[n][0].living for n in self._owned if n in self._tasks]
        return [handler for handler in mine if handler is not None]

    async def run(self, stop: asyncio.Event) -> None:
        """Process until told to stop; open transactions are finished first."""
        attempt = 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                try:
                    await self._be_member(group, stop)
                except (Retry, KafkaError, TimeoutError, OSError) as error:
                    self._why_not = f"not a member of the group: {clients.describe(error)}"
                    self._observer.restarted(f"{self._setup.group} membership", self._why_not)
                    await pause(stop, backoff_s(attempt))
                    attempt += 1
            await self._end(list(self._tasks))

    async def _be_member(self, group: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        member = clients.member(
            self._cluster,
            group=self._cluster.group(self._setup.group),
            instance=self._instance,
            assignors=self._assignors,
        )
        member.subscribe(
            [self._cluster.topic(name) for name in self._inputs], listener=_Assignment(self, member, group)
        )
        await clients.start(member)
        try:
            while not stop.is_set():
                member._coordinator.check_errors()
                await pause(stop, CHECK_S)
            await self._end(list(self._tasks))
        finally:
            await self.revoked()
            await clients.close(member)

    async def revoked(self) -> None:
        """Every task finishes its open batch and waits."""
        for task, _ in list(self._tasks.values()):
            await task.park()

    async def assigned(self, partitions: Sequence[TopicPartition], group: asyncio.TaskGroup) -> None:
        """Go on with what came back, start what is new, end what went to another."""
        numbers: dict[int, set[str]] = {}
        for tp in partitions:
            numbers.setdefault(tp.partition, set()).add(self._cluster.short(tp.topic))
        whole = {n for n, topics in numbers.items() if topics >= set(self._inputs)}
        self.split = frozenset(numbers) - whole
        await self._end([n for n in self._tasks if n not in whole])
        for n in sorted(whole):
            if n not in self._tasks or self._tasks[n][1].done():
                task = Task(self._setup, n)
                self._tasks[n] = (task, group.create_task(task.run(), name=f"{self._setup.group}-{n}"))
            self._tasks[n][0].unpark()
        self._owned = frozenset(whole)
        self._why_not = (
            f"inputs of {sorted(self.split)} are split among members: they are not co-partitioned"
            if self.split
            else None
        )

    async def _end(self, numbers: Sequence[int]) -> None:
        ending = [self._tasks.pop(n) for n in numbers]
        for task, _ in ending:
            task.end()
        if ending:
            await asyncio.wait([running for _, running in ending])


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """The member reads nothing: its partitions are paused, and sought so that it asks for no position."""

    def __init__(self, owner: TransactionalProcessor[Any], member: AIOKafkaConsumer, group: asyncio.TaskGroup) -> None:
        self._owner = owner
        self._member = member
        self._group = group

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        await self._owner.revoked()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        for partition in assigned:
            self._member.pause(partition)
            self._member.seek(partition, 0)
        await self._owner.assigned(assigned, self._group)
