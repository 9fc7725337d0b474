"""The idempotent processor: a batch in, outputs acked, then facts and changelog acked, then the position committed.

At least once: a crash repeats what was not committed, and the repeat may be decided on another control view. What makes
that harmless: outputs are acked before the facts that name them; changelog entries are written once and say which
offset claimed them; a batch held longer than a session is thrown away; downstream drops what it has seen by source.
Facts, changelog and positions are gathered for `FACTS_GATHER_S`, off the webhook's way. After any failure a partition's
life begins again: state from the changelog, records from the committed position. Not here: the matcher's rules.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import MillraceError, Reject, Retry, Stale
from millrace_core.handling import Handled, IdempotentHandler
from millrace_core.record import Output, Received
from millrace_core.restart import backoff_s, pause
from millrace_kafka import client as clients
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.feed import Feed, OffLog, Part
from millrace_kafka.gathering import Gathering
from millrace_kafka.membership import Membership
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader
from millrace_kafka.topics import CATALOGUE, Writer

log = logging.getLogger(__name__)

POLL_S = 0.25
TELL_EVERY_S = 1.0
# A revocation must be over before the session is, or the group goes on without us and the commit is refused.
REVOKE_S_MAX = limits.SESSION_TIMEOUT_S / 2

DeadLetterFacts = Callable[[Received, str], Sequence[Output]]
"""What is told, as facts, of a record that was parked with this reason."""


@dataclass(slots=True)
class _Partition:
    """One partition's life. `position` is the next record to handle; what is pending reaches up to `gathered`."""

    number: int
    position: int
    generation: int
    is_warm: bool = True
    gathered: int = -1
    gathered_since: float = 0.0
    facts: list[Output] = field(default_factory=list)
    changes: list[Output] = field(default_factory=list)

    def take(self) -> tuple[list[Output], list[Output], int]:
        taken = self.facts, self.changes, self.gathered
        self.facts, self.changes, self.gathered = [], [], -1
        return taken


@dataclass(slots=True)
class _Decided:
    """What is to become of a batch of one partition."""

    partition: _Partition
    records: Sequence[Received]
    outputs: list[Output] = field(default_factory=list)
    facts: list[Output] = field(default_factory=list)
    changes: list[Output] = field(default_factory=list)


class IdempotentProcessor:
    """One per process and group. `run` is its life; the handler is only ever called from there."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        topic: str,
        changelog: str,
        handler: IdempotentHandler,
        view: ControlView,
        producer: PlainProducer,
        clock: Clock,
        observer: Observer | None = None,
        instance: str | None = None,
        on_dead_letter: DeadLetterFacts | None = None,
        facts_gather_s: float = limits.FACTS_GATHER_S,
        held_s_max: float = limits.BATCH_HELD_S_MAX,
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._topic = topic
        self._changelog = changelog
        self._handler = handler
        self._view = view
        self._producer = producer
        self._clock = clock
        self._observer = observer or Silent()
        self._on_dead_letter = on_dead_letter
        self._facts_gather_s = facts_gather_s
        self._held_s_max = held_s_max
        self._feed = Feed(cluster, read_committed=CATALOGUE[topic].writer is Writer.TRANSACTIONAL)
        self._membership = Membership(
            cluster,
            group=group,
            topics=(topic,),
            instance=instance,
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            observer=self._observer,
        )
        self._partitions: dict[int, _Partition] = {}
        self._stopped: dict[int, str] = {}
        self._owned: frozenset[int] = frozenset()
        self._is_between = True
        self._changed = asyncio.Event()
        self._gathering = Gathering(limits.BATCH_GATHER_S)
        self._gate = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._told_at = 0.0

    def ready(self) -> str | None:
        """None when every partition that is ours is being handled, else why not."""
        if reason := self._membership.ready() or self._producer.ready():
            return reason
        if self._stopped:
            return "; ".join(f"{self._topic} {number} stopped: {why}" for number, why in sorted(self._stopped.items()))
        handled = {number for number, partition in self._partitions.items() if partition.is_warm}
        if self._is_between or self._changed.is_set() or self._owned - handled:
            return "restoring its partitions"
        return None

    async def run(self, stop: asyncio.Event) -> None:
        """Handle records until `stop`; then finish the open batch, commit, and give the partitions back."""
        leave = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._membership.run(leave))
                flusher = tasks.create_task(self._flush_often())
                await self._work(stop)
                flusher.cancel()
                self._tell_tallies()
                leave.set()
        finally:
            await self._feed.stop()

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _work(self, stop: asyncio.Event) -> None:
        """The one place where errors become: again, from the committed position; or stopped."""
        attempt, is_started, taken = 0, False, 0
        while not stop.is_set():
            try:
                if not is_started:
                    await self._feed.start()
                    is_started = True
                if self._changed.is_set() and not self._is_between:
                    await self._adopt()
                await self._gathering.turn(taken)
                batches = await self._feed.poll(timeout_s=POLL_S, max_records=limits.BATCH_RECORDS_MAX)
                taken = sum(map(len, batches.values()))
                if batches:
                    await self._take(batches, self._clock.monotonic())
                    attempt = 0
            except OffLog as error:
                for _, number in error.parts:
                    self._stop(number, str(error))
            except (Retry, Stale) as error:
                self._begin_again(self._partitions, str(error))
                await pause(stop, backoff_s(attempt))
                attempt += 1

    async def _take(self, batches: dict[Part, list[Received]], polled_at: float) -> None:
        async with self._gate:
            if self._is_between or self._changed.is_set():
                return  # they are read again from where `_adopt` sets the feed
            mine = {}
            for (_, number), records in batches.items():
                partition = self._partitions.get(number)
                if number in self._owned and partition is not None and partition.is_warm:
                    mine[number] = records
            if mine:
                await self._batch(mine, polled_at)

    async def _batch(self, batches: dict[int, list[Received]], polled_at: float) -> None:
        # Whatever was in force when these records were appended lies before the end of the control log.
        await self._view.passed(await self._view.end())
        position = self._view.position
        decided = [self._decide(self._partitions[number], batches[number], position) for number in batches]
        outputs = [output for each in decided for output in each.outputs]
        self._not_held(polled_at)
        await self._emit(outputs)
        for each in decided:
            self._gather(each, polled_at)
        took = self._clock.monotonic() - polled_at
        for each in decided:
            self._observer.batch(self._topic, each.partition.number, len(each.records), took)

    async def _emit(self, outputs: list[Output]) -> None:
        """Outputs are on the log when this returns: nothing that names them may be written before."""
        if outputs:
            await self._producer.write(outputs)

    def _gather(self, each: _Decided, polled_at: float) -> None:
        partition = each.partition
        if partition.gathered < 0:
            partition.gathered_since = polled_at
        partition.facts += each.facts
        partition.changes += each.changes
        partition.position = partition.gathered = each.records[-1].offset + 1

    def _tell_tallies(self) -> None:
        """Tallies may be lost: nobody waits for them."""
        for tally in self._handler.tally():
            try:
                self._producer.submit(tally).add_done_callback(lambda future: future.cancelled() or future.exception())
            except (Reject, Retry) as error:
                log.info("tally.lost reason=%s", error)

    def _not_held(self, since: float) -> None:
        """A process that was frozen wakes in the middle of a batch that another may have handled meanwhile."""
        held_s = self._clock.monotonic() - since
        if held_s > self._held_s_max:
            raise Retry(f"a batch was held for {held_s:.1f} s and thrown away")

    # ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _decide(self, partition: _Partition, records: Sequence[Received], position: int) -> _Decided:
        decided = _Decided(partition, records)
        try:
            self._merge(decided, self._handler.handle(records, position))
        except (Retry, Stale):
            raise
        except Exception:
            # One of them is poison: alone, each shows whether it is the one.
            decided = _Decided(partition, records)
            for record in records:
                self._decide_alone(decided, record, position)
        return decided

    def _decide_alone(self, decided: _Decided, record: Received, position: int) -> None:
        try:
            self._merge(decided, self._handler.handle((record,), position))
        except (Retry, Stale):
            raise
        except Exception as error:
            if not isinstance(error, Reject):
                log.exception("record.failed topic=%s offset=%d", record.topic, record.offset)
            reason = str(error) if isinstance(error, MillraceError) else clients.describe(error)
            self._park(decided, record, reason)

    def _park(self, decided: _Decided, record: Received, reason: str) -> None:
        self._observer.dead_letter(self._topic, record.partition, record.offset, reason)
        letter = dead_letter(record, reason)
        facts = list(self._on_dead_letter(record, reason)) if self._on_dead_letter else []
        try:
            for output in (letter, *facts):
                self._producer.check(output)
        except Reject as error:
            self._stop(
                record.partition, f"offset {record.offset} can be neither handled ({reason}) nor parked ({error})"
            )
            raise Retry(f"{self._topic} {record.partition} stopped at {record.offset}") from error
        decided.outputs.append(letter)
        decided.facts += facts

    def _merge(self, decided: _Decided, handled: Handled) -> None:
        """Take it as a whole or, when anything in it could not be written, raise Reject and take nothing."""
        changes = [Output(self._changelog, key, value, partition=number) for number, key, value in handled.changes]
        for outputs in (handled.outputs, handled.facts, changes):
            for output in outputs:
                self._producer.check(output)
        decided.outputs += handled.outputs
        decided.facts += handled.facts
        decided.changes += changes

    # ── facts, changelog, positions ─────────────────────────────────────────────────────────────────────────────────

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(self._facts_gather_s)
            await self._flush()
            self._tell_now_and_then()

    async def _flush(self) -> None:
        """Write what was gathered: facts, then changelog, then positions. A failure begins those partitions anew."""
        async with self._flushing:
            ripe = [each for each in self._partitions.values() if each.gathered >= 0 and each.is_warm]
            try:
                for each in ripe:
                    self._not_held(each.gathered_since)
                taken = {each.number: each.take() for each in ripe}
                await self._emit([fact for facts, _, _ in taken.values() for fact in facts])
                await self._emit([change for _, changes, _ in taken.values() for change in changes])
                await self._commit({number: position for number, (_, _, position) in taken.items()})
            except BaseException as error:
                # Also when cancelled: what was taken may not be on the log, so nothing behind it may be committed.
                self._begin_again({each.number: each for each in ripe}, clients.describe(error))
                if not isinstance(error, MillraceError):
                    raise

    async def _commit(self, positions: dict[int, int]) -> None:
        await self._membership.commit({(self._topic, number): (at, "") for number, at in positions.items()})

    def _tell_now_and_then(self) -> None:
        now = self._clock.monotonic()
        if now - self._told_at < TELL_EVERY_S:
            return
        self._told_at = now
        self._tell_tallies()
        for part in self._feed.parts:
            partition = self._partitions.get(part[1])
            if partition is not None:
                behind = max(0, self._feed.end(part) - partition.position)
                age_s = max(0.0, now - partition.gathered_since) if partition.gathered >= 0 else 0.0
                self._observer.lag(self._topic, part[1], behind, age_s if behind else 0.0)

    # ── coming and going ────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, owned: frozenset[Part]) -> None:
        self._owned = frozenset(number for _, number in owned)
        self._is_between = False
        self._changed.set()

    async def _revoked(self, _revoked: frozenset[Part]) -> None:
        """Finish the open batch and commit while the group still takes it. What is kept warm is looked at when the
        partitions come back."""
        self._owned = frozenset()
        self._is_between = True
        try:
            async with asyncio.timeout(REVOKE_S_MAX):
                async with self._gate:
                    await self._flush()
        except TimeoutError:
            self._begin_again(self._partitions, "the partitions were revoked before the batch was over")

    async def _adopt(self) -> None:
        """Make ready what is ours now. When it fails, or the assignment changes meanwhile, it is due again."""
        self._changed.clear()
        owned = self._owned
        try:
            for number in [number for number in self._partitions if number not in owned]:
                del self._partitions[number]
                self._handler.forget(number)
            await self._ready_partitions(owned)
        except BaseException:
            self._changed.set()
            raise
        self._feed.set({(self._topic, each.number): each.position for each in self._partitions.values()})

    async def _ready_partitions(self, owned: frozenset[int]) -> None:
        generation = self._membership.generation
        parts = [(self._topic, number) for number in sorted(owned) if number not in self._stopped]
        async with Admin(self._cluster) as admin:
            committed = await admin.committed_at(self._group, [self._feed.tp(part) for part in parts])
        for part in parts:
            number, at = part[1], committed[self._feed.tp(part)].offset
            if at < 0:
                self._stop(number, f"no position in group {self._group}: run `millrace topics`")
                continue
            known = self._partitions.get(number)
            if known is not None and known.is_warm and (known.generation == generation or known.position == at):
                known.generation = generation
                continue
            if known is not None:
                del self._partitions[number]
                self._handler.forget(number)
            await self._restore(number)
            self._partitions[number] = _Partition(number, at, generation)

    async def _restore(self, number: int) -> None:
        entries: list[tuple[bytes, bytes, int]] = []
        part = (self._changelog, number)
        async with Reader(self._cluster, read_committed=False) as reader:
            async for batch in reader.read(await reader.starts([part]), await reader.ends([part])):
                entries += [(r.key, r.value, r.timestamp) for r in batch if r.key is not None and r.value is not None]
        self._handler.restore(number, entries)

    def _begin_again(self, partitions: dict[int, _Partition], reason: str) -> None:
        """Drop what these partitions hold in memory; they are restored before their next record."""
        for partition in partitions.values():
            partition.is_warm = False
            partition.take()
        self._changed.set()
        if partitions:
            self._observer.restarted(f"{self._group} {sorted(partitions)}", reason)

    def _stop(self, number: int, reason: str) -> None:
        """For good, and loudly: a human must look. The other partitions go on."""
        self._stopped[number] = reason
        self._partitions.pop(number, None)
        self._changed.set()
        log.error(
            "partition.stopped group=%s topic=%s partition=%d reason=%s", self._group, self._topic, number, reason
        )
        self._observer.stopped(self._topic, number, reason)
