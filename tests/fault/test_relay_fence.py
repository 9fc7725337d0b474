"""A relay that froze with an old version in hand, and woke: it must not put it over the new one. And relays without
their fence, which do (planted faults): compaction would keep the old version for ever.

Not here: how the server takes the lock from a frozen relay (its idle session is ended; integration tests).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.reader import read_all
from millrace_store import outbox
from millrace_store.migrations import migrate
from millrace_store.outbox import Entry
from millrace_store.relay import Relay
from tests.support.infra import end_session
from tests.support.waiting import eventually


class Freezing:
    """A writer that freezes with its first entries in hand until it is woken."""

    def __init__(self, writer: ControlWriter) -> None:
        self._writer = writer
        self.holds: Sequence[Entry] | None = None
        self.woken = asyncio.Event()
        self.ended = asyncio.Event()

    async def start(self) -> None:
        await self._writer.start()

    async def write(self, entries: Sequence[Entry]) -> int:
        self.holds = entries
        await self.woken.wait()
        try:
            return await self._write(entries)
        finally:
            self.ended.set()

    async def _write(self, entries: Sequence[Entry]) -> int:
        return await self._writer.write(entries)

    async def stop(self) -> None:
        await self._writer.stop()


class StartedWhenItWrites(Freezing):
    """Planted fault: the fence is drawn when there is something to write, not when the lock was taken."""

    async def start(self) -> None:
        """Not yet."""

    async def _write(self, entries: Sequence[Entry]) -> int:
        await self._writer.start()
        return await self._writer.write(entries)


class OfItsOwn(Cluster):
    """Planted fault: each relay writes under a transactional id of its own, so that none fences another."""

    def transactional_id(self, name: str) -> str:
        return f"{super().transactional_id(name)}-{id(self)}"


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.run(stop))
        try:
            yield
        finally:
            stop.set()


async def change(database: str, version: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            value = b'{"version":%d}' % version
            await outbox.append(connection, Entry("endpoint", "acc_1", "we_1", version, value))
    finally:
        await connection.close()


async def what_stands(cluster: Cluster) -> list[bytes | None]:
    return [record.value for record in await read_all(cluster, ["control"])]


async def until_stands(cluster: Cluster, value: bytes) -> None:
    async def stands() -> bool:
        return (await what_stands(cluster))[-1:] == [value]

    await eventually(stands, timeout_s=20.0)


async def frozen_and_woken(
    cluster: Cluster, database: str, frozen: Freezing, second: ControlWriter
) -> list[bytes | None]:
    """One relay freezes holding version 1, a second publishes 1 and 2, the first wakes: what then is on the log."""
    await create_topics(cluster)
    await migrate(database)
    await change(database, 1)
    first = Relay(database, writer=lambda: frozen, name="first relay")
    async with running(first):
        await eventually(lambda: frozen.holds, what="the first relay holds version 1")
        await end_session(database, "first relay")
        async with running(Relay(database, writer=lambda: second, name="second relay")):
            await until_stands(cluster, b'{"version":1}')
            await change(database, 2)
            await until_stands(cluster, b'{"version":2}')
            frozen.woken.set()
            await asyncio.wait_for(frozen.ended.wait(), 20.0)
            return await what_stands(cluster)


async def test_a_woken_relay_writes_nothing(cluster: Cluster, database: str) -> None:
    log = await frozen_and_woken(cluster, database, Freezing(ControlWriter(cluster)), ControlWriter(cluster))
    assert log == [b'{"version":1}', b'{"version":2}']


@pytest.mark.parametrize("fault", ["no common transactional id", "the fence drawn after the lock was lost"])
async def test_without_its_fence_it_puts_old_over_new(cluster: Cluster, database: str, fault: str) -> None:
    faulty: dict[str, Callable[[], Freezing]] = {
        "no common transactional id": lambda: Freezing(
            ControlWriter(OfItsOwn(cluster.bootstrap, namespace=cluster.namespace))
        ),
        "the fence drawn after the lock was lost": lambda: StartedWhenItWrites(ControlWriter(cluster)),
    }
    log = await frozen_and_woken(cluster, database, faulty[fault](), ControlWriter(cluster))
    assert log[-1] == b'{"version":1}'
