"""Closes days: when one is over its facts are read from the log again, and each account's root goes to `receipt-roots`.

One projector closes, whichever holds the lock; a day after the other, since the roots chain. (1) Wait until the read
models hold all receipts on the log: they are the state. (2) A day is over when the broker's clock says so, a grace
behind its end: our own only tells when to ask. (3) Leaves, then the roots above them, then that the day is closed, each
acked before the next. A crash before that, or a second closer, makes the same day again and writes the same records,
of which the first stand. Nothing here is on the way of an event, and it takes a fifth of the process's time at most.
Not here: what a root is (`millrace_core.receipts`), and the rows (`receipt_records`).
"""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.errors import Reject, Retry
from millrace_core.ids import DAY_MS
from millrace_core.messages import DayClosed, DayDue, Message, ReceiptLeaves, ReceiptRoot, ReceiptSeed, encode
from millrace_core.receipts import GENESIS, HASH_BYTES, Chunk, Tree, chain_of, day_of
from millrace_core.record import ACCOUNT, Output
from millrace_core.restart import pause
from millrace_kafka.client import Cluster
from millrace_kafka.reader import OffLog, Part, Reader
from millrace_projector import receipt_days
from millrace_projector.ports import ReceiptLog, ReceiptsTold
from millrace_projector.receipt_days import RECEIPT_LEAVES, RECEIPT_ROOTS
from millrace_store import receipts
from millrace_store.pool import AWAY, Connection

# OffLog: retention went over what was being read; the day is looked at anew. Reject: no record here can be too large.
_AGAIN: tuple[type[Exception], ...] = (Retry, Reject, OffLog, *AWAY)


@dataclass(frozen=True, slots=True)
class _Day:
    """A day to be closed, and where it begins on the log."""

    start: int
    starts: Mapping[Part, int]


class Closing:
    """Closes days until told to stop. `day_ms` and `grace_s` are a day's and five minutes but in tests."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[Connection]],
        cluster: Cluster,
        log: ReceiptLog,
        told: ReceiptsTold,
        clock: Clock,
        day_ms: int = DAY_MS,
        grace_s: float = limits.RECEIPT_GRACE_S,
        look_s: float = limits.RECEIPT_LOOK_S,
        share: float = limits.RECEIPT_SHARE_MAX,
    ) -> None:
        self._connect = connect
        self._cluster = cluster
        self._log = log
        self._told = told
        self._clock = clock
        self._day_ms = day_ms
        self._grace_ms = int(grace_s * 1000)
        self._look_s = look_s
        self._share = share
        self._closed_until: int | None = None

    def age_s(self) -> float:
        """Time since the end of the last day that is closed, or since the first with facts began; NaN before either is
        known."""
        return math.nan if self._closed_until is None else (self._clock.now_ms() - self._closed_until) / 1000

    async def run(self, stop: asyncio.Event) -> None:
        """The worker. Kafka or Postgres away only means that nothing is closed meanwhile. A day takes long: told to
        stop, it is left as a crash would leave it."""
        while not stop.is_set():
            try:
                await _unless(stop, self._live())
            except _AGAIN as error:
                self._told.failed(str(error) or type(error).__name__)
            await pause(stop, self._look_s)

    async def _live(self) -> None:
        connection = await self._connect()
        try:
            while True:
                await self._look(connection)
                await asyncio.sleep(self._look_s)
        finally:
            connection.terminate()

    async def _look(self, connection: Connection) -> None:
        await self._tell(connection)
        if self._may_be_due() and await receipts.take_lock(connection):
            async with Reader(self._cluster) as reader:
                while await self._close_next(reader, connection):
                    await self._tell(connection)

    async def _tell(self, connection: Connection) -> None:
        if (last := await receipts.last_closed(connection)) is not None:
            self._closed_until = last.day + self._day_ms
        self._told.contradicted(await receipts.contradictions(connection))

    def _may_be_due(self) -> bool:
        """By our own clock."""
        return self._closed_until is None or self._is_due(self._closed_until, self._clock.now_ms())

    def _is_due(self, day: int, now_ms: int) -> bool:
        return now_ms >= day + self._day_ms + self._grace_ms

    async def _close_next(self, reader: Reader, connection: Connection) -> bool:
        """Close the next day; False when none is over."""
        await receipt_days.until_projected(reader, connection, wait_s=limits.RECEIPT_PROJECTED_S_MAX)
        day = await self._next(reader, connection)
        if day is None:
            return False
        self._closed_until = day.start
        if not await self._is_over(day.start):
            return False
        seed = await receipts.seed(connection) or await self._sown(reader, connection)
        ends = await receipt_days.beginning(reader, day.start + self._day_ms)
        closed = await self._written(reader, connection, day, ends, seed)
        await self._log.write([_output(closed)])
        self._told.closed(closed.day, closed.accounts, closed.facts)
        await receipt_days.until_projected(reader, connection, wait_s=limits.RECEIPT_PROJECTED_S_MAX)
        return True

    async def _is_over(self, day: int) -> bool:
        if not self._is_due(day, self._clock.now_ms()):
            return False
        (written,) = await self._log.write([_output(DayDue(day=day))])
        return self._is_due(day, written.timestamp)

    async def _sown(self, reader: Reader, connection: Connection) -> bytes:
        """The seed, made now: the first on the log, whoever wrote it."""
        await self._log.write([_output(ReceiptSeed(seed=secrets.token_bytes(HASH_BYTES)))])
        await receipt_days.until_projected(reader, connection, wait_s=limits.RECEIPT_PROJECTED_S_MAX)
        seed = await receipts.seed(connection)
        if seed is None:
            raise Retry("the seed is on the log and not in the read models")
        return seed

    # ── which day ───────────────────────────────────────────────────────────────────────────────────────────────────
    async def _next(self, reader: Reader, connection: Connection) -> _Day | None:
        """The day behind the last that is closed; where the log has lost facts of it, the first whole one."""
        last = await receipts.last_closed(connection)
        if last is None:
            return await self._first_whole(reader, 0)
        parts = await receipt_days.fact_parts(reader)
        starts = {part: last.ends.get(part, 0) for part in parts}
        held = await reader.starts(parts)
        following = last.day + self._day_ms
        if all(held[part] <= start for part, start in starts.items()):
            return _Day(following, starts)
        self._told.lost(following)
        return await self._first_whole(reader, following + self._day_ms)

    async def _first_whole(self, reader: Reader, least: int) -> _Day | None:
        """The first day, `least` or later, of which the log holds everything; None on an empty log."""
        parts = await receipt_days.fact_parts(reader)
        held, firsts = await reader.starts(parts), await reader.first_at(parts, 0)
        days = {part: day_of(first.timestamp, self._day_ms) for part, first in firsts.items() if first is not None}
        if not days:
            return None
        # Of the day of the first record that is left, others may be lost.
        begun = [day + self._day_ms for part, day in days.items() if held[part] > 0]
        day = max(least, max(begun, default=min(days.values())))
        return _Day(day, await receipt_days.beginning(reader, day))

    # ── one day ─────────────────────────────────────────────────────────────────────────────────────────────────────
    async def _written(
        self, reader: Reader, connection: Connection, day: _Day, ends: Mapping[Part, int], seed: bytes
    ) -> DayClosed:
        """All leaves and roots of the day, acked; and what is then to be said of it."""
        accounts = facts = 0
        leaves: list[Output] = []
        roots: list[Output] = []
        chunks = receipt_days.trees(reader, connection, day.starts, ends, seed=seed, share=self._share)
        async for chunk in chunks:
            leaves.append(_leaves(chunk, day.start))
            if chunk.tree is not None:
                roots.append(await _root(connection, chunk.account, day.start, chunk.tree))
                accounts, facts = accounts + 1, facts + chunk.tree.leaves
            if len(leaves) >= limits.RECEIPT_CHUNKS_WRITTEN_TOGETHER:
                await self._flush(leaves, roots)
        await self._flush(leaves, roots)
        places = tuple((topic, partition, offset) for (topic, partition), offset in sorted(ends.items()))
        return DayClosed(day=day.start, accounts=accounts, facts=facts, ends=places)

    async def _flush(self, leaves: list[Output], roots: list[Output]) -> None:
        for outputs in (leaves, roots):
            if outputs:
                await self._log.write(outputs)
                outputs.clear()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do it, or as much of it as there is time for until `stop` is set."""
    tasks = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if not tasks[0].cancelled():
        tasks[0].result()


def _leaves(chunk: Chunk, day: int) -> Output:
    message = ReceiptLeaves(account=chunk.account, day=day, first=chunk.first, root=chunk.root, entries=chunk.entries)
    return _output(message, chunk.account, topic=RECEIPT_LEAVES)


async def _root(connection: Connection, account: str, day: int, tree: Tree) -> Output:
    previous = await receipts.chain_before(connection, account, day) or GENESIS
    chain = chain_of(previous, account, day, tree.leaves, tree.root)
    message = ReceiptRoot(account=account, day=day, leaves=tree.leaves, root=tree.root, previous=previous, chain=chain)
    return _output(message, account)


def _output(message: Message, account: str | None = None, *, topic: str = RECEIPT_ROOTS) -> Output:
    """What is of no account has no key and goes to the first partition: so it has an order."""
    if account is None:
        return Output(topic, None, encode(message))
    return Output(topic, account.encode(), encode(message), ((ACCOUNT, account.encode()),))
