"""One partition number's task of a transactional processor: its life, and what happens when an outcome is unknown.

Life: start the producer (fences an older owner, ends its open transaction) → restore the state from the changelog to
its end → read the committed positions *after* that → read back, load the handler → loop: batch → handler → one
transaction of outputs, changelog and positions → apply the overlay. After any failure the overlay is dropped, the
producer discarded and the life begun again. A record that cannot be handled is parked in `dead-letters-tx` in the same
transaction; when even that cannot be, the task stops for good and says so. Not here: who owns the partition
(`transactional`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiokafka import TopicPartition

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.dead_letters import TRANSACTIONAL as DEAD_LETTERS
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import MillraceError, Reject, Retry
from millrace_core.handling import Parked, TransactionalHandler
from millrace_core.record import CONTROL, ID, SOURCE, Output, Received, Written, header
from millrace_core.restart import backoff_s, pause
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.feed import OffLog, Part
from millrace_kafka.observer import Observer
from millrace_kafka.reader import Reader
from millrace_kafka.store import Overlay, StateStore, StateStores
from millrace_kafka.transaction import Placed, Transactions

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=TransactionalHandler)

POLL_S = 0.25
LAG_EVERY_S = 1.0
# Markers and aborted records take offsets. A position that stays before them falls off the log when that is cut, and a
# partition that merely had nothing to do would stop for good at its next start.
MARKERS_EVERY_S = 5.0


class Unparkable(MillraceError):
    """A record could be neither handled nor parked; its partition stopped."""


@dataclass(frozen=True, slots=True)
class Setup(Generic[Handler]):
    """What all tasks of one processor share."""

    cluster: Cluster
    group: str
    inputs: tuple[str, ...]
    changelog: str
    read_back: tuple[str, ...]
    handler: Callable[[int], Handler]
    stores: StateStores
    clock: Clock
    observer: Observer
    view: ControlView | None
    transactions: type[Transactions]


class Task(Generic[Handler]):
    """The task of partition `number`. `run` lives until `end`; `park` and `unpark` follow the group's assignment."""

    def __init__(self, setup: Setup[Handler], number: int) -> None:
        self._setup = setup
        self._number = number
        self._allowed = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._ended = asyncio.Event()
        self._why_not: str | None = "starting"
        self._transactions: Transactions | None = None
        self._reader: Reader | None = None
        self._store: StateStore | None = None
        self._handler: Handler | None = None
        self._positions: dict[Part, int] = {}

    def ready(self) -> str | None:
        """None while it lives and moves; else what it does instead."""
        return self._why_not

    @property
    def living(self) -> Handler | None:
        """Its handler, while it lives and moves."""
        return self._handler if self._why_not is None else None

    def unpark(self) -> None:
        """The partition is ours: go on."""
        self._allowed.set()

    async def park(self) -> None:
        """The partition may go to another: return once the open batch is over. What is held stays warm."""
        self._allowed.clear()
        await self._at_rest.wait()

    def end(self) -> None:
        """Finish the open batch and return from `run`."""
        self._ended.set()
        self._allowed.set()

    async def run(self) -> None:
        """Live, again and again. Returns after `end`; never raises for what a new life can mend."""
        attempt = 0
        while not self._ended.is_set():
            try:
                await self._allowed.wait()
                began = asyncio.get_running_loop().time()
                await self._live()
            except (OffLog, Unparkable) as error:
                await self._stop_for_good(str(error))
            except Exception as error:
                attempt = 0 if asyncio.get_running_loop().time() - began > limits.RESTART_BACKOFF_S[-1] else attempt
                await self._rest_before_next_life(error, attempt)
                attempt += 1
            finally:
                self._at_rest.set()
                await self._let_go()

    # ── beginning ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self) -> None:
        setup, number = self._setup, self._number
        self._why_not = "restoring"
        transactional_id = f"{setup.group}-{number}"
        self._transactions = setup.transactions(
            setup.cluster, transactional_id=setup.cluster.transactional_id(transactional_id), group=setup.group
        )
        await self._transactions.start()
        self._reader = Reader(setup.cluster, read_committed=True)
        await self._reader.start()
        async with Admin(setup.cluster) as admin:
            await self._restore(admin)
            self._positions = await self._committed(admin)
        handler = self._handler = setup.handler(number)
        assert self._store is not None
        state = Overlay(self._store)
        # Not on the loop: a million timers take seconds, and a membership that misses its heartbeats would give the
        # partition away, so that the next owner loads it all again.
        await asyncio.to_thread(handler.load, state, await self._read_back())
        if state.changes():
            raise Retry("a handler may not change state while it loads")
        self._reader.assign(self._positions)
        self._why_not = None
        await self._loop(handler, state)

    async def _restore(self, admin: Admin) -> None:
        setup, part = self._setup, (self._setup.changelog, self._number)
        assert self._reader is not None
        info = (await admin.topics([setup.changelog])).get(setup.changelog)
        if info is None:
            raise Retry(f"{setup.changelog} does not exist: create the topics first (millrace topics)")
        store = setup.stores.open(setup.changelog, self._number, topic_id=info.id, now_ms=setup.clock.now_ms())
        self._store = store
        start, end = (await self._reader.starts([part]))[part], (await self._reader.ends([part]))[part]
        if store.position is not None and not start <= store.position <= end:
            log.warning("store.off_log changelog=%s partition=%d", setup.changelog, self._number)
            store.clear()
        at = store.position if store.position is not None else start
        async for batch in self._reader.read({part: at}, {part: end}):
            changes = [(record.key or b"", record.value) for record in batch]
            await asyncio.to_thread(store.apply, changes, batch[-1].offset + 1)

    async def _committed(self, admin: Admin) -> dict[Part, int]:
        asked = [TopicPartition(self._setup.cluster.topic(name), self._number) for name in self._setup.inputs]
        found = {
            (self._setup.cluster.short(tp.topic), tp.partition): at.offset
            for tp, at in (await admin.committed_at(self._setup.group, asked)).items()
        }
        if lost := [part for part, offset in found.items() if offset < 0]:
            raise OffLog(lost, f"(no position in group {self._setup.group}: run `millrace topics`)")
        return found

    async def _read_back(self) -> list[Received]:
        """Source and id of the records that stand before our positions: what the handler's windows are made of."""
        assert self._reader is not None
        kept: list[Received] = []
        for name in self._setup.read_back:
            part = (name, self._number)
            start, end = (await self._reader.starts([part]))[part], self._positions[part]
            begin = max(start, end - limits.READ_BACK_RECORDS_MAX)
            async for batch in self._reader.read({part: begin}, {part: end}):
                kept += [Written(r.topic, r.partition, r.offset, r.timestamp, None, None, _window(r)) for r in batch]
        return kept

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _loop(self, handler: TransactionalHandler, state: Overlay) -> None:
        assert self._reader is not None
        loop = asyncio.get_running_loop()
        committed_at, told_lag_at = 0.0, 0.0
        while True:
            if not self._allowed.is_set():
                self._at_rest.set()
                await self._allowed.wait()
            if self._ended.is_set():
                return
            # Back to back, a transaction waits 24 ms for the broker to complete the one before; so let a batch gather.
            if (early := committed_at + limits.TRANSACTION_GATHER_S - loop.time()) > 0:
                await asyncio.sleep(early)
            records = await self._reader.poll(timeout_s=self._patience_s(handler), max_records=limits.BATCH_RECORDS_MAX)
            if not self._allowed.is_set():
                # Asked to park while it polled: another may own the partition by now, so this batch never was.
                self._reader.assign(self._positions)
                continue
            if loop.time() - told_lag_at > LAG_EVERY_S:
                told_lag_at = loop.time()
                self._tell_lag(records)
            due_ms = handler.next_due_ms()
            is_due = due_ms is not None and due_ms <= self._setup.clock.now_ms()
            has_moved = loop.time() - committed_at > MARKERS_EVERY_S and self._has_moved()
            if not (records or is_due or has_moved):
                continue
            self._at_rest.clear()
            await self._transact(handler, state, records)
            committed_at = loop.time()

    def _patience_s(self, handler: TransactionalHandler) -> float:
        due_ms = handler.next_due_ms()
        if due_ms is None:
            return POLL_S
        return min(POLL_S, max(0.0, (due_ms - self._setup.clock.now_ms()) / 1000))

    async def _transact(self, handler: TransactionalHandler, state: Overlay, records: Sequence[Received]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._wait_for_control(records)
        assert self._transactions is not None
        placed, is_index_sound = self._decide(handler, state, records)
        changes = [Output(self._setup.changelog, key, value, partition=self._number) for key, value in state.changes()]
        placed += [self._transactions.place(change) for change in changes]
        written = await self._transactions.commit(placed, self._moved())
        # From here the transaction stands: the store may take it.
        position = written.get((self._setup.changelog, self._number))
        if position is not None:
            state.commit(position)
        took = loop.time() - began
        self._setup.observer.transaction(self._number, took)
        for part, count in _counts(self._setup.cluster, records).items():
            self._setup.observer.batch(*part, count, took)
        if not is_index_sound:
            raise Retry("a handler failed unexpectedly; its indexes are built anew")

    def _decide(
        self, handler: TransactionalHandler, state: Overlay, records: Sequence[Received]
    ) -> tuple[list[Placed], bool]:
        assert self._transactions is not None
        placed: list[Placed] = []
        is_index_sound = True
        now_ms = self._setup.clock.now_ms()
        for record in records:
            state.mark()
            made: Sequence[Output] | None = None
            try:
                made = handler.handle(record, state, record.timestamp)
                placed += [self._transactions.place(output) for output in made]
            except Retry:
                raise
            except Exception as error:
                state.undo()
                # A handler's Reject comes before any index changes; anything else may have left them (half) changed,
                # and an output that cannot be placed comes after.
                is_index_sound = is_index_sound and isinstance(error, Reject) and made is None
                placed.append(self._park(record, error))
                if isinstance(error, Parked):
                    placed += [self._transactions.place(output) for output in error.outputs]
        state.mark()
        placed += [self._transactions.place(output) for output in handler.due(state, now_ms, limits.BATCH_RECORDS_MAX)]
        return placed, is_index_sound

    def _park(self, record: Received, error: Exception) -> Placed:
        assert self._transactions is not None
        reason = str(error) if isinstance(error, MillraceError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, Reject):
            log.error("record.failed topic=%s offset=%d", record.topic, record.offset, exc_info=error)
        self._setup.observer.dead_letter(
            self._setup.cluster.short(record.topic), record.partition, record.offset, reason
        )
        try:
            return self._transactions.place(dead_letter(record, reason, topic=DEAD_LETTERS))
        except Reject as refused:
            raise Unparkable(
                f"{record.topic} {record.partition} at {record.offset} can be neither handled ({reason}) nor parked "
                f"({refused})"
            ) from error

    async def _wait_for_control(self, records: Sequence[Received]) -> None:
        """A record is decided on a view at least as new as the one it was made on."""
        if self._setup.view is None:
            return
        stamps = [int(at) for record in records if (at := header(record, CONTROL)) is not None and at.isdigit()]
        if stamps and max(stamps) > self._setup.view.position:
            await self._setup.view.passed(max(stamps), timeout_s=limits.CONTROL_WAIT_S_MAX)

    def _has_moved(self) -> bool:
        assert self._reader is not None
        return any(self._reader.position(part) != before for part, before in self._positions.items())

    def _moved(self) -> dict[Part, int]:
        """The positions to commit: behind the records, and behind markers and aborted records that follow them."""
        assert self._reader is not None
        moved = {}
        for part, before in self._positions.items():
            at = self._reader.position(part)
            if at != before:
                moved[part] = self._positions[part] = at
        return moved

    # ── ending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stop_for_good(self, reason: str) -> None:
        self._why_not = f"stopped: {reason}"
        self._setup.observer.stopped(self._setup.inputs[0], self._number, reason)
        log.error("partition.stopped group=%s number=%d reason=%s", self._setup.group, self._number, reason)
        self._at_rest.set()
        await self._let_go()
        await self._ended.wait()

    async def _rest_before_next_life(self, error: Exception, attempt: int) -> None:
        reason = str(error) if isinstance(error, MillraceError) else f"{type(error).__name__}: {error}"
        self._why_not = f"beginning again: {reason}"
        self._setup.observer.restarted(f"{self._setup.group} {self._number}", reason)
        if not isinstance(error, MillraceError):
            log.error("task.failed group=%s number=%d", self._setup.group, self._number, exc_info=error)
        self._at_rest.set()
        await self._let_go()
        await pause(self._ended, backoff_s(attempt))

    async def _let_go(self) -> None:
        transactions, self._transactions = self._transactions, None
        reader, self._reader = self._reader, None
        store, self._store = self._store, None
        if transactions is not None:
            await transactions.discard()
        if reader is not None:
            await reader.stop()
        if store is not None:
            store.close()

    def _tell_lag(self, records: Sequence[Received]) -> None:
        assert self._reader is not None
        oldest: dict[Part, int] = {}
        for record in records:
            oldest.setdefault((self._setup.cluster.short(record.topic), record.partition), record.timestamp)
        now_ms = self._setup.clock.now_ms()
        for part in self._positions:
            behind = self._reader.behind(part)
            age_s = max(0.0, (now_ms - oldest[part]) / 1000) if part in oldest else 0.0
            self._setup.observer.lag(*part, behind, age_s)


def _window(record: Received) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value) for name, value in record.headers if name in (SOURCE, ID))


def _counts(cluster: Cluster, records: Sequence[Received]) -> dict[tuple[str, int], int]:
    counts: dict[tuple[str, int], int] = {}
    for record in records:
        part = (cluster.short(record.topic), record.partition)
        counts[part] = counts.get(part, 0) + 1
    return counts
