"""Parts of millrace_kafka run inside a test: started, watched, stopped."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from millrace_core.clock import SystemClock
from millrace_core.handling import ControlFollower
from millrace_core.record import Received
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.observer import Silent
from millrace_kafka.producer import PlainProducer


class Runs(Protocol):
    async def run(self, stop: asyncio.Event) -> None: ...


R = TypeVar("R", bound=Runs)


@asynccontextmanager
async def running(made: R) -> AsyncIterator[R]:
    """It runs while the context lasts, then is asked to stop and waited for."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run(stop))
        try:
            yield made
        finally:
            stop.set()


@asynccontextmanager
async def dying(made: Any) -> AsyncIterator[Any]:
    """It runs while the context lasts and then ends as a killed process does: in the middle, committing nothing."""

    async def nothing(_revoked: object) -> None:
        """A dead process hears of no revocation."""

    task = asyncio.ensure_future(made.run(asyncio.Event()))
    try:
        yield made
    finally:
        made._membership._on_revoked = nothing
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def producing(cluster: Cluster, kind: type[PlainProducer] = PlainProducer) -> AsyncIterator[PlainProducer]:
    producer = kind(cluster)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def viewing(cluster: Cluster, **followers: ControlFollower) -> AsyncIterator[ControlView]:
    view = ControlView(cluster, followers=followers, clock=SystemClock())
    await view.start()
    async with running(view):
        yield view


async def positions(cluster: Cluster, group: str, topic: str) -> dict[int, int]:
    """Where the group stands on a topic, by partition."""
    async with Admin(cluster) as admin:
        return {number: at.offset for (_, number), at in (await admin.committed(group, [topic])).items()}


def values(records: Iterable[Received]) -> list[bytes]:
    return [record.value or b"" for record in records]


class Recorder(Silent):
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.dead_letters: list[tuple[str, int, int, str]] = []
        self.stops: list[tuple[str, int, str]] = []
        self.restarts: list[tuple[str, str]] = []

    def dead_letter(self, topic: str, partition: int, offset: int, reason: str) -> None:
        self.dead_letters.append((topic, partition, offset, reason))

    def restarted(self, what: str, reason: str) -> None:
        self.restarts.append((what, reason))

    def stopped(self, topic: str, partition: int, reason: str) -> None:
        self.stops.append((topic, partition, reason))
