"""The plain producer: idempotent, acks=all, everything it says is acked is on the log. Used by gateway, matcher, lanes.

Outputs of one loop turn, under load those of some milliseconds (`gathering`), and all that arrive while a partition's
batch is in flight, travel in one batch (aiokafka's `create_batch`/`send_batch` cost 1.4 µs a record, `send` 8–11). One
batch of a partition is in flight at a time, in order. After any refused or timed-out batch aiokafka's sequence numbers
are beyond repair (aiokafka#1017): the client is discarded, everything queued fails with Retry, a new client is started.
A failed record may still be on the log.
Not here: transactions (`transactional`), and any bound on how much a caller submits (the gateway's).
"""

import asyncio
import contextlib
import copy
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from millrace_core import limits
from millrace_core.errors import Retry
from millrace_core.record import Output
from millrace_core.restart import backoff_s
from millrace_kafka import client as clients
from millrace_kafka.client import Cluster
from millrace_kafka.gathering import Gathering
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.routing import Metadata, Place, Routing
from millrace_kafka.topics import Writer

log = logging.getLogger(__name__)

Outcome = Any  # the broker's RecordMetadata, or the Retry that a failed batch ends with


class _Batch:
    """Records of one partition that travel together. `done` never raises: its result is the outcome."""

    __slots__ = ("builder", "done", "futures", "records", "timer")

    def __init__(self, builder: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.builder = builder
        self.done: asyncio.Future[Outcome] = loop.create_future()
        self.futures: list[tuple[asyncio.Future[Metadata], int]] = []
        self.records = 0
        self.timer: asyncio.TimerHandle | None = None


class _Stream:
    """The batches of one partition: one in flight, the others in order behind it, the last of them still open."""

    __slots__ = ("in_flight", "partition", "place", "waiting")

    def __init__(self, place: Place, partition: int) -> None:
        self.place = place
        self.partition = partition
        self.waiting: deque[_Batch] = deque()
        self.in_flight: _Batch | None = None


class PlainProducer:
    """One per process. `write` and `submit` may be called from any task of its loop, never from another thread."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        observer: Observer | None = None,
        timeout_s: float = limits.PRODUCE_TIMEOUT_S,
        gather_s: float = limits.PRODUCE_GATHER_S,
        gather_records: int = limits.PRODUCE_GATHER_RECORDS,
    ) -> None:
        self._cluster = cluster
        self._observer = observer or Silent()
        self._timeout_s = timeout_s
        self._routing = Routing(cluster, Writer.PLAIN)
        self._client: Any = None
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._dirty: deque[_Stream] = deque()
        self._wake = asyncio.Event()
        self._gathering = Gathering(gather_s)
        self._gather_records = gather_records
        self._gathered = 0
        self._is_lost = False  # a topic is asked for of which nothing is known
        self._learned_at = float("-inf")
        self._why_away: str | None = "not started"
        self._broken: list[Any] = []
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.in_flight = 0
        """Records submitted and not yet acked or failed."""

    async def start(self) -> None:
        """Connect. When the broker is away it goes on trying in the background: `ready` says so, `write` raises."""
        # Kept: to ask for the running loop is a system call each time.
        self._loop = asyncio.get_running_loop()
        try:
            await self._connect()
        except Retry as error:
            self._why_away = str(error)
        self._task = self._loop.create_task(self._run(), name="producer")

    async def stop(self) -> None:
        """Wait for what is in flight, within the producer's time-out, then close. Nothing may be written after it."""
        self._stopping = True
        held = [batch.done for stream in self._streams.values() for batch in self._batches_of(stream)]
        if held:
            await asyncio.wait(held, timeout=self._timeout_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail("the producer was stopped")
        for broken in self._broken:
            await clients.discard(broken)
        self._broken.clear()

    def ready(self) -> str | None:
        """None when records can be written, else why not."""
        return self._why_away

    def __len__(self) -> int:
        return self.in_flight

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, outputs: Sequence[Output]) -> list[Metadata]:
        """Return when every output is acked, with where each stands. All are checked before any is sent: Reject means
        that nothing was. Retry means that any of them may be on the log or not. Cancelling does not take them back."""
        if len(outputs) == 1:
            return [await self.submit(outputs[0])]
        places = self._places(outputs)
        marks: list[tuple[_Batch, int]] = []
        for output, (place, partition) in zip(outputs, places, strict=True):
            batch = self._append(place, partition, output)
            marks.append((batch, batch.records - 1))
        self._count(len(outputs))
        batches = {batch for batch, _ in marks}
        pending = [batch.done for batch in batches if not batch.done.done()]
        if pending:
            await asyncio.wait(pending)
        stand = {batch: self._stands(batch.done.result()) for batch in batches}
        acked = []
        for batch, position in marks:
            name, partition, offset, timestamp = stand[batch]
            acked.append(Metadata(name, partition, offset + position, timestamp))
        return acked

    def _stands(self, outcome: Outcome) -> tuple[str, int, int, int]:
        """Topic, partition, first offset and time of a batch that was acked; raises the Retry of one that was not."""
        if isinstance(outcome, Retry):
            raise copy.copy(outcome)
        return self._cluster.short(outcome.topic), outcome.partition, outcome.offset, outcome.timestamp

    def check(self, output: Output) -> None:
        """Raises Reject for what could never be written, so that a caller learns it before it depends on it, and Retry
        where its topic is not known of yet."""
        try:
            self._routing.place(output)
        except Retry:
            self._ask_for_topics()
            raise

    def _ask_for_topics(self) -> None:
        self._is_lost = True
        self._wake.set()

    def _places(self, outputs: Sequence[Output]) -> list[tuple[Place, int]]:
        """Where each of them goes, when all of them may and can go there now."""
        try:
            places = [self._routing.place(output) for output in outputs]
        except Retry as error:
            self._ask_for_topics()
            raise Retry(self._why_away or str(error)) from error
        if self._why_away is not None:
            raise Retry(self._why_away)
        return places

    def submit(self, output: Output) -> asyncio.Future[Metadata]:
        """Queue one record; the future has its place, or Retry. Raises Reject or Retry at once when it cannot be
        queued. What is submitted within one loop turn travels together."""
        ((place, partition),) = self._places((output,))
        batch = self._append(place, partition, output)
        self._count(1)
        future: asyncio.Future[Metadata] = self._loop.create_future()
        batch.futures.append((future, batch.records - 1))
        return future

    def _append(self, place: Place, partition: int, output: Output) -> _Batch:
        stream = self._streams.get((place.topic, partition))
        if stream is None:
            stream = self._streams[place.topic, partition] = _Stream(place, partition)
        batch = stream.waiting[-1] if stream.waiting else self._open(stream)
        headers = list(output.headers)
        # The time is the broker's (LogAppendTime), so none is given. A batch that is empty takes any record.
        while batch.builder.append(timestamp=None, key=output.key, value=output.value, headers=headers) is None:
            batch = self._open(stream)
        batch.records += 1
        return batch

    def _count(self, records: int) -> None:
        self.in_flight += records
        self._gathered += records
        if self._gathered - records < self._gather_records <= self._gathered:
            self._gathering.enough()

    def _open(self, stream: _Stream) -> _Batch:
        batch = _Batch(self._client.create_batch(), self._loop)
        # aiokafka never expires an idempotent batch while a leader is known.
        batch.timer = self._loop.call_later(self._timeout_s, self._timed_out, stream)
        stream.waiting.append(batch)
        if stream.in_flight is None and len(stream.waiting) == 1:
            self._mark(stream)
        return batch

    def _mark(self, stream: _Stream) -> None:
        self._dirty.append(stream)
        self._wake.set()

    # ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        """The one task of the producer: hands batches to the client, and replaces the client when it broke."""
        while True:
            while self._why_away is not None:
                await self._revive()
            await self._wake.wait()
            await self._gathering.turn(self._gathered)
            self._wake.clear()
            self._gathered = 0
            if self._is_lost:
                await self._learn_again()
            while self._dirty and self._why_away is None:
                await self._send(self._dirty.popleft())

    async def _send(self, stream: _Stream) -> None:
        if stream.in_flight is not None or not stream.waiting:
            return
        batch = stream.in_flight = stream.waiting.popleft()
        batch.builder.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                acked = await self._client.send_batch(batch.builder, stream.place.topic, partition=stream.partition)
        except Exception as error:
            self._fail(f"a batch for {stream.place.name} could not be sent: {clients.describe(error)}")
            return
        acked.add_done_callback(lambda future: self._acked(stream, batch, future))

    def _acked(self, stream: _Stream, batch: _Batch, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or error is not None:
            if stream.in_flight is batch:
                reason = clients.describe(error) if error else "cancelled"
                self._fail(f"a batch for {stream.place.name} was refused: {reason}")
            return
        if batch.done.done():
            return
        stream.in_flight = None
        self._settle(batch, future.result())
        if stream.waiting:
            self._mark(stream)

    def _settle(self, batch: _Batch, outcome: Outcome) -> None:
        if batch.timer is not None:
            batch.timer.cancel()
        self.in_flight -= batch.records
        batch.done.set_result(outcome)
        is_failed = isinstance(outcome, Retry)
        name = "" if is_failed else self._cluster.short(outcome.topic)
        for future, position in batch.futures:
            if future.done():
                continue
            if is_failed:
                future.set_exception(copy.copy(outcome))
            else:
                future.set_result(Metadata(name, outcome.partition, outcome.offset + position, outcome.timestamp))

    # ── failing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _timed_out(self, stream: _Stream) -> None:
        self._fail(
            f"the broker did not ack {stream.place.name} within {self._timeout_s:g} s; the records may be on the log: "
            "repeat them with the same uniqueKey"
        )

    def _fail(self, reason: str) -> None:
        """Everything queued fails, and the client is never used again."""
        outcome = Retry(reason)
        self._why_away = reason
        if self._client is not None:
            self._broken.append(self._client)
            self._client = None
        for stream in self._streams.values():
            held = list(self._batches_of(stream))
            stream.waiting.clear()
            stream.in_flight = None
            for batch in held:
                self._settle(batch, outcome)
        self._dirty.clear()
        self._wake.set()
        if not self._stopping:
            log.warning("producer.discarded reason=%s", reason)
            self._observer.restarted("producer", reason)

    @staticmethod
    def _batches_of(stream: _Stream) -> Iterable[_Batch]:
        if stream.in_flight is not None:
            yield stream.in_flight
        yield from stream.waiting

    async def _revive(self) -> None:
        while self._broken:
            await clients.discard(self._broken.pop())
        attempt = 0
        while True:
            try:
                return await self._connect()
            except Retry as error:
                self._why_away = str(error)
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _learn_again(self) -> None:
        """Ask for the topics once more, now and then: they may have been made since, and a broker that has just come
        back knows of none for a moment. Without an answer nothing changes."""
        self._is_lost = False
        if self._client is None or self._loop.time() - self._learned_at < limits.ROUTING_LEARNED_EVERY_S:
            return
        self._learned_at = self._loop.time()
        with contextlib.suppress(Retry):
            learning = self._routing.learn(self._client.client)
            await clients.within(learning, limits.PRODUCE_TIMEOUT_S, "the topics cannot be read")

    async def _connect(self) -> None:
        fresh = clients.producer(self._cluster)
        await clients.start(fresh)
        try:
            async with asyncio.timeout(limits.PRODUCE_TIMEOUT_S):
                await self._routing.learn(fresh.client)
        except BaseException as error:
            with contextlib.suppress(Exception):
                await clients.discard(fresh)
            if isinstance(error, TimeoutError):
                raise Retry("the broker does not answer for its topics") from error
            raise
        self._client = fresh
        self._why_away = None
