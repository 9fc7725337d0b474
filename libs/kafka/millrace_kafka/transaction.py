"""One transactional producer and its transactions: outputs, changelog and positions become visible together or not.

aiokafka commits a transaction although a send inside it was refused, so every send future is awaited before the commit.
Any failure or time-out, the commit's too, leaves the outcome unknown: the caller discards the producer and begins its
life again. Not here: what is written, and what to do with an unknown outcome (`transaction_task`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.record import Output
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.feed import Part
from millrace_kafka.routing import Place, Routing
from millrace_kafka.topics import Writer

Placed = tuple[Output, Place, int]


class Transactions:
    """The transactions of one transactional id. Starting it fences whoever had the id before, and ends what they had
    open. Used by one task."""

    def __init__(self, cluster: Cluster, *, transactional_id: str, group: str) -> None:
        self._cluster = cluster
        self._group = cluster.group(group)
        self._routing = Routing(cluster, Writer.TRANSACTIONAL)
        self._client: AIOKafkaProducer = clients.producer(cluster, transactional_id=transactional_id)

    async def start(self) -> None:
        """Fence, and learn the topics. Raises Retry, leaving nothing open."""
        await clients.start(self._client)
        try:
            await clients.within(
                self._routing.learn(self._client.client), limits.PRODUCE_TIMEOUT_S, "the topics cannot be read"
            )
        except BaseException:
            await self.discard()
            raise

    async def discard(self) -> None:
        """Drop it without flushing: an open transaction is left to the fence or the broker's time-out."""
        await clients.discard(self._client)

    def place(self, output: Output) -> Placed:
        """Where the output goes. Raises Reject for what the broker or the catalogue would refuse."""
        return (output, *self._routing.place(output))

    async def commit(
        self, placed: Sequence[Placed], positions: Mapping[Part, int], *, await_sends: bool = True
    ) -> dict[tuple[str, int], int]:
        """One transaction. For each partition written to (catalogue name, number), the offset behind its last record.

        Raises Retry when the outcome is unknown. `await_sends` is for the test that shows why they are awaited."""
        try:
            async with asyncio.timeout(limits.TRANSACTION_TIMEOUT_S):
                await self._client.begin_transaction()
                sent = await self._send(placed)
                if positions:
                    offsets = {TopicPartition(self._cluster.topic(t), n): at for (t, n), at in positions.items()}
                    # The sends are under way meanwhile.
                    await self._client.send_offsets_to_transaction(offsets, self._group)
                if await_sends:
                    await _all(list(sent.values()))
                await self._client.commit_transaction()
        except (KafkaError, TimeoutError, OSError, AssertionError) as error:
            raise Retry(f"a transaction's outcome is unknown: {clients.describe(error)}") from error
        written: dict[tuple[str, int], int] = {}
        for (topic, partition, count), future in sent.items():
            if await_sends or (future.done() and not future.exception()):
                written[topic, partition] = future.result().offset + count.records
        return written

    async def _send(self, placed: Sequence[Placed]) -> "dict[tuple[str, int, _Count], asyncio.Future[Any]]":
        """Hand all records to the client, in order within each partition, in as few batches as they fit in."""
        by_partition: dict[tuple[str, str, int], list[Output]] = {}
        for output, place, partition in placed:
            by_partition.setdefault((place.name, place.topic, partition), []).append(output)
        sent: dict[tuple[str, int, _Count], asyncio.Future[Any]] = {}
        for (name, topic, partition), outputs in by_partition.items():
            builder, records = self._client.create_batch(), 0
            for output in outputs:
                if not _append(builder, output):
                    sent[name, partition, _Count(records)] = await self._hand_over(builder, topic, partition)
                    builder, records = self._client.create_batch(), 0
                    _append(builder, output)
                records += 1
            sent[name, partition, _Count(records)] = await self._hand_over(builder, topic, partition)
        return sent

    async def _hand_over(self, builder: Any, topic: str, partition: int) -> "asyncio.Future[Any]":
        builder.close()
        future: asyncio.Future[Any] = await self._client.send_batch(builder, topic, partition=partition)
        future.add_done_callback(_seen)
        return future


class _Count:
    """How many records a batch holds. Compared by identity, so that batches of one partition stay apart."""

    __slots__ = ("records",)

    def __init__(self, records: int) -> None:
        self.records = records


def _append(builder: Any, output: Output) -> bool:
    # The time is the broker's (LogAppendTime), so none is given.
    return builder.append(timestamp=None, key=output.key, value=output.value, headers=list(output.headers)) is not None


async def _all(futures: "list[asyncio.Future[Any]]") -> None:
    if futures:
        await asyncio.wait(futures)
    for future in futures:
        if error := future.exception():
            raise error


def _seen(send: "asyncio.Future[Any]") -> None:
    """A send whose transaction was given up has nobody left to look at its error."""
    if not send.cancelled():
        send.exception()
