"""How the rest of this package gets aiokafka clients, and how it gets rid of them.

Settings that must be the same everywhere stand here once: no offset reset, zstd, fetches that carry the greatest
record, no client outliving its owner by more than a moment. aiokafka has no public way to drop a producer that can no
longer be flushed, so `discard` reaches inside it (aiokafka 0.14, pinned below 0.15). Not here: what is read or written.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_kafka.security import Security
from millrace_kafka.topics import PREFIX, full_name, short_name

CLOSE_S_MAX = 3.0
# One batch of small records; a larger record travels alone.
BATCH_BYTES = 1 << 20
FETCH_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the log is. `namespace` keeps several stacks apart on one broker (tests)."""

    bootstrap: str
    namespace: str = ""
    client_id: str = "millrace"
    security: Security = field(default_factory=Security)

    def topic(self, name: str) -> str:
        """The broker's name for a catalogue name."""
        return full_name(name, self.namespace)

    def short(self, topic: str) -> str:
        """The catalogue name for a broker's name."""
        return short_name(topic)

    def group(self, name: str) -> str:
        """The broker's name for a consumer group of `groups.GROUPS`."""
        return f"{PREFIX}{self.namespace + '.' if self.namespace else ''}{name}"

    def transactional_id(self, name: str) -> str:
        """The identity by which the broker fences an older writer of that name."""
        return f"{PREFIX}{self.namespace + '.' if self.namespace else ''}{name}"


def producer(cluster: Cluster, *, transactional_id: str | None = None) -> AIOKafkaProducer:
    """A producer that has not started. Idempotent, acks=all, zstd, no linger."""
    return AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap,
        client_id=cluster.client_id,
        **cluster.security.options(),
        enable_idempotence=True,
        compression_type="zstd",
        linger_ms=0,
        max_batch_size=BATCH_BYTES,
        max_request_size=limits.DEAD_LETTER_BYTES_MAX,
        request_timeout_ms=int(limits.PRODUCE_TIMEOUT_S * 1000),
        # NotEnoughReplicas on the first produce of a transaction means that the previous one still completes.
        retry_backoff_ms=int((limits.TRANSACTION_RETRY_BACKOFF_S if transactional_id else 0.05) * 1000),
        transactional_id=transactional_id,
        transaction_timeout_ms=int(limits.TRANSACTION_TIMEOUT_S * 1000),
    )


def consumer(cluster: Cluster, *, read_committed: bool, fetch_wait_ms: int = FETCH_WAIT_MS) -> AIOKafkaConsumer:
    """A consumer that belongs to no group and reads what it is assigned and sought to. It never resets an offset."""
    return AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap,
        client_id=cluster.client_id,
        **cluster.security.options(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed" if read_committed else "read_uncommitted",
        max_partition_fetch_bytes=limits.DEAD_LETTER_BYTES_MAX,
        fetch_max_wait_ms=fetch_wait_ms,
        request_timeout_ms=int(limits.PRODUCE_TIMEOUT_S * 1000),
        retry_backoff_ms=50,
    )


def member(
    cluster: Cluster,
    *,
    group: str,
    instance: str | None,
    assignors: tuple[Any, ...] = (RangePartitionAssignor,),
    session_timeout_s: float = limits.SESSION_TIMEOUT_S,
) -> AIOKafkaConsumer:
    """A consumer that only holds a membership. Static when `instance` is given: a quick restart moves nothing."""
    return AIOKafkaConsumer(
        bootstrap_servers=cluster.bootstrap,
        client_id=cluster.client_id,
        **cluster.security.options(),
        group_id=group,
        group_instance_id=instance,
        enable_auto_commit=False,
        auto_offset_reset="none",
        partition_assignment_strategy=assignors,
        session_timeout_ms=int(session_timeout_s * 1000),
        heartbeat_interval_ms=int(limits.HEARTBEAT_S * 1000),
        # It never fetches, so how long ago it last did says nothing.
        max_poll_interval_ms=2**31 - 1,
        request_timeout_ms=int(limits.PRODUCE_TIMEOUT_S * 1000),
        retry_backoff_ms=50,
    )


async def start(client: AIOKafkaProducer | AIOKafkaConsumer, *, timeout_s: float = limits.PRODUCE_TIMEOUT_S) -> None:
    """Start it within the bound or raise Retry, leaving nothing open."""
    try:
        async with asyncio.timeout(timeout_s):
            await client.start()
    except (KafkaError, TimeoutError, OSError, AssertionError) as error:
        await _away(client)
        raise Retry(f"the broker cannot be reached: {describe(error)}") from error
    except BaseException:
        await _away(client)
        raise


async def _away(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    await (discard(client) if isinstance(client, AIOKafkaProducer) else close(client))


async def close(client: AIOKafkaConsumer) -> None:
    """Stop a consumer, within a bound, whatever state it is in."""
    # A consumer that never started has a client but no fetcher: `stop` leaves that open.
    for step in (client.stop, client._client.close):
        with contextlib.suppress(Exception):
            try:
                async with asyncio.timeout(CLOSE_S_MAX):
                    await step()
            except asyncio.CancelledError:
                # aiokafka cancels its fetches and awaits them; one that rests after a failure lets that through as if
                # it were ours, and whoever closes would end in silence, half way through its own clean-up.
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise


async def discard(client: AIOKafkaProducer) -> None:
    """Get rid of a producer without flushing it: whatever it still held is failed, nothing of it is sent later."""
    client._closed = True
    accumulator, task = client._message_accumulator, client._sender.sender_task
    accumulator._closed = True
    error = KafkaError("the producer was discarded")
    accumulator._exception = error
    held = [batch for batches in accumulator._batches.values() for batch in batches]
    for batch in [*held, *accumulator._pending_batches]:
        batch.failure(error)
        for future in (batch.future, batch._drain_waiter):
            if future.done() and not future.cancelled():
                future.exception()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S_MAX):
            await client.client.close()
    waiting = client.client._md_update_fut
    if waiting is not None and not waiting.done():
        waiting.set_result(False)
    if task is None:
        return
    # Its first cancellation waits for the requests in flight, its second does not.
    for _ in range(2):
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CLOSE_S_MAX)
    if task.done() and not task.cancelled():
        task.exception()
    # Nobody is left to look at the transaction that was open.
    ended = client._txn_manager._transaction_waiter
    if ended is not None and ended.done() and not ended.cancelled():
        ended.exception()


async def within(work: Awaitable[Any], timeout_s: float, what: str) -> Any:
    """Await a call of the client, or raise Retry that says what failed. Every call of aiokafka goes through a bound."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except (KafkaError, TimeoutError, OSError) as error:
        raise Retry(f"{what}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """What went wrong, in a line, also for errors without a message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
