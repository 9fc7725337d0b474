"""Lanes: slow outside effects with many keys in flight, done in any order, committed in order. Executor and dispatcher.

At least once: a record counts as done when the outputs of its work are acked; only the contiguous prefix is committed,
what is done beyond it stands in the commit's metadata (`progress`) and is not repeated. The end of a process is clean
when it gave its partitions back; after an unclean one the first open record is begun alone, and after the third death
it is a dead letter: one record that kills its process must not stop a partition for ever. Memory is bounded: nothing is
fetched while `LANES_BUFFERED_MAX` records are held. Work goes on through a rebalance; what does not come back is
cancelled. Not here: order and fairness (`lane_queues`), retries that outlive the process (timers on the log).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from millrace_core import limits
from millrace_core.clock import Clock, SystemClock
from millrace_core.dead_letters import dead_letter
from millrace_core.errors import MillraceError, Reject, Retry, Stale
from millrace_core.record import ACCOUNT, CONTROL, Output, Received, header
from millrace_core.restart import backoff_s, pause
from millrace_kafka import client as clients
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.feed import Feed, OffLog, Part
from millrace_kafka.gathering import Gathering
from millrace_kafka.lane_queues import Job, Lane, LaneQueues
from millrace_kafka.membership import Membership
from millrace_kafka.observer import Observer, Silent
from millrace_kafka.producer import PlainProducer
from millrace_kafka.progress import Progress, decode, encode
from millrace_kafka.reader import Reader

__all__ = ["Lane", "Lanes", "Memory"]

log = logging.getLogger(__name__)

POLL_S = 0.1
# While a partition is left out, since nothing wakes a poll when there is room for it again.
POLL_FULL_S = 0.02
# The client asks a broker one thing at a time: a partition that is read again waits for the last question, which was
# about the others and is answered when they have something, or after so long.
FETCH_WAIT_MS = 100
COMMIT_EVERY_S = 0.1
LAG_EVERY_S = 1.0
RELANE_EVERY_S = 0.1
REVOKE_S_MAX = limits.SESSION_TIMEOUT_S / 2
# Leaves time to commit and to leave the group before the service is killed.
DRAIN_S_MAX = limits.SHUTDOWN_S_MAX * 0.6
# A failure that the work did not foresee is tried this often before the record is parked.
FAILURES_MAX = 3
# It dies once in a crowd, then alone.
ALONE_MAX = limits.UNCLEAN_DEATHS_MAX - 1

Work = Callable[[Received], Awaitable[Sequence[Output]]]
DeadLetterFacts = Callable[[Received, str], Sequence[Output]]


class Memory(Protocol):
    """What a service remembers of its own input from before the position: each new owner reads it back from the log.
    Topics are named as in the records. None of it may raise."""

    def begin(self, topic: str, partition: int) -> None:
        """A partition is taken over: what was remembered of it no longer holds."""
        ...

    def recall(self, record: Received) -> None:
        """A record from before the position, oldest first, a bounded number of them."""
        ...

    def see(self, record: Received) -> None:
        """A record from the position on: each once, in log order, before its lane is asked for, and also those that an
        earlier life has finished."""
        ...

    def forget(self, topic: str, partition: int) -> None:
        """The partition is no longer this process's."""
        ...


class _Partition:
    """What is held of one partition in this life."""

    __slots__ = ("committed", "held", "jobs", "part", "progress", "suspect_until")

    def __init__(self, part: Part, progress: Progress, committed: tuple[int, str]) -> None:
        self.part = part
        self.progress = progress
        self.committed = committed
        self.held: deque[Received] = deque()  # read, but its metadata has no room for more open records yet
        self.jobs: dict[int, Job[_Item]] = {}
        # After an unclean end the first open record before it may be what killed the last owner. None = no suspect.
        self.suspect_until: int | None = None


class _Item:
    """One record to be worked on. `poison` = why it is to be parked without being worked on."""

    __slots__ = ("partition", "poison", "record", "task")

    def __init__(self, partition: _Partition, record: Received, poison: str | None) -> None:
        self.partition = partition
        self.record = record
        self.poison = poison
        self.task: asyncio.Task[None] | None = None


class Lanes:
    """One per process and group. `lane` says where a record belongs and must be quick; `work` does it: its outputs are
    written before the record counts as done. From `work`, Reject parks the record, Retry tries again after a bounded
    pause (holding its place), any other error is tried three times and then parked. It may be cancelled, and it may be
    repeated after a crash: the same effect must then carry the same idempotency key. While no more can be read,
    `relane` is asked now and then of what waits, and may send it another way. `hold` may keep a lane from beginning its
    next record until a moment of the monotonic clock (`lane_queues`)."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        topics: Sequence[str],
        lane: Callable[[Received], Lane],
        work: Work,
        producer: PlainProducer,
        observer: Observer | None = None,
        view: ControlView | None = None,
        clock: Clock | None = None,
        instance: str | None = None,
        on_dead_letter: DeadLetterFacts | None = None,
        memory: Memory | None = None,
        read_back: Sequence[str] = (),
        in_flight_max: int = limits.LANES_IN_FLIGHT_MAX,
        buffered_max: int = limits.LANES_BUFFERED_MAX,
        topic_buffered_max: Mapping[str, int] | None = None,
        relane: Callable[[Received], Lane | None] | None = None,
        hold: Callable[[Received, float], float] | None = None,
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._lane = lane
        self._work = work
        self._producer = producer
        self._observer = observer or Silent()
        self._view = view
        self._clock = clock or SystemClock()
        self._on_dead_letter = on_dead_letter
        self._memory = memory
        self._read_back = frozenset(read_back)
        self._in_flight_max = in_flight_max
        self._buffered_max = buffered_max
        self._topic_buffered_max = topic_buffered_max or {}
        self._relane = relane
        self._relaned_at = 0.0
        # Some inputs have transactional writers; on the others both ways of reading see the same.
        self._feed = Feed(cluster, read_committed=True, fetch_wait_ms=FETCH_WAIT_MS)
        self._membership = Membership(
            cluster,
            group=group,
            topics=topics,
            instance=instance,
            on_assigned=self._assigned,
            on_revoked=self._revoked,
            observer=self._observer,
        )
        # A quarter is left to others, however much slow work one account has.
        self._queues: LaneQueues[_Item] = LaneQueues(
            account_max=max(1, in_flight_max * 3 // 4),
            hold=None if hold is None else lambda item, now_s: hold(item.record, now_s),
        )
        self._waking: asyncio.TimerHandle | None = None
        self._partitions: dict[Part, _Partition] = {}
        self._stopped: dict[Part, str] = {}
        self._suspects: dict[Part, None] = {}
        self._owned: frozenset[Part] = frozenset()
        self._is_between = True
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._gathering = Gathering(limits.BATCH_GATHER_S)
        self._taken = 0
        self._idle = asyncio.Event()
        self._committing = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._is_draining = False
        self._told_lag_at = 0.0
        self.running = 0
        """Records being worked on now."""

    @property
    def buffered(self) -> int:
        """Records held: waiting or being worked on."""
        return sum(len(each.progress) + len(each.held) for each in self._partitions.values())

    def ready(self) -> str | None:
        """None when every partition that is ours is being worked on, else why not."""
        if reason := self._membership.ready() or self._producer.ready():
            return reason
        if self._stopped:
            return "; ".join(f"{topic} {n} stopped: {why}" for (topic, n), why in sorted(self._stopped.items()))
        return "taking its partitions over" if self._changed.is_set() else None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then begin nothing new, finish what runs within a bound, commit, and give all back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    await self._live(tasks, stop)
                finally:
                    self._is_draining = True  # a group that ends takes no more tasks
        finally:
            await self._feed.stop()

    async def _live(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        leave = asyncio.Event()
        member = tasks.create_task(self._membership.run(leave))
        committer = tasks.create_task(self._commit_often())
        await self._take_in(stop)
        await self._drain()
        committer.cancel()
        leave.set()
        await asyncio.wait([member])
        for partition in tuple(self._partitions.values()):
            self._drop(partition)

    # ── taking in ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_in(self, stop: asyncio.Event) -> None:
        attempt, is_started = 0, False
        while not stop.is_set():
            try:
                if not is_started:
                    await self._feed.start()
                    is_started = True
                if self._changed.is_set() and not self._is_between:
                    await self._adopt()
                await self._read()
                attempt = 0
            except OffLog as error:
                for part in error.parts:
                    self._stop(part, str(error))
            except (Retry, Stale) as error:
                self._observer.restarted(f"lanes of {self._group}", str(error))
                await pause(stop, backoff_s(attempt))
                attempt += 1

    async def _read(self) -> None:
        taken, self._taken = self._taken, 0
        await self._gathering.turn(taken)
        room = self._buffered_max - self.buffered
        full = [part for part, each in self._partitions.items() if each.held or each.progress.is_full()]
        if room <= 0 or full:
            self._ask_again()
        if room <= 0:
            # The membership is another consumer's, so nothing has to be polled while nothing can be taken.
            self._room.clear()
            await pause(self._room, POLL_S)
            return
        full += self._parts_over_their_share()
        # `Feed.set` forgets what was paused, so this is said again in every round, after a rebalance too.
        self._feed.pause(full)
        self._feed.resume(part for part in self._partitions if part not in full)
        batches = await self._feed.poll(timeout_s=POLL_FULL_S if full else POLL_S, max_records=room)
        self._taken = sum(map(len, batches.values()))
        for part, records in batches.items():
            partition = self._partitions.get(part)
            if partition is not None:
                partition.held.extend(records)
                self._release_held(partition)
        for part, partition in self._partitions.items():
            if partition.held or part not in self._feed.parts:
                continue
            partition.progress.passed(self._feed.position(part))
            if partition.suspect_until is not None and partition.progress.position >= partition.suspect_until:
                self._acquit(partition)  # there was nothing but markers
        self._begin()

    def _ask_again(self) -> None:
        """While no more can be read, ask of what waits whether it should go another way (once in a while)."""
        now = self._clock.monotonic()
        if self._relane is None or now - self._relaned_at < RELANE_EVERY_S:
            return
        self._relaned_at = now
        for partition in self._partitions.values():
            for offset, job in partition.jobs.items():
                lane = self._relane(job.what.record) if job.what.task is None else None
                if lane is not None:
                    job.is_void = True
                    partition.jobs[offset] = self._queues.add(lane, job.what)
        self._begin()

    def _parts_over_their_share(self) -> list[Part]:
        """The partitions of topics that hold as much of the buffer as they may: they must not keep others out."""
        over: list[Part] = []
        for topic, share in self._topic_buffered_max.items():
            own = [each for part, each in self._partitions.items() if part[0] == topic]
            if sum(len(each.progress) + len(each.held) for each in own) >= share:
                over += [each.part for each in own]
        return over

    def _release_held(self, partition: _Partition) -> None:
        while partition.held and not partition.progress.is_full():
            self._take(partition, partition.held.popleft())

    def _take(self, partition: _Partition, record: Received) -> None:
        if record.offset < partition.progress.next:
            return
        if self._memory is not None:
            self._memory.see(record)
        if not partition.progress.taken(record.offset):
            return
        poison = None
        try:
            lane = self._lane(record)
        except Exception as error:
            poison = str(error) if isinstance(error, MillraceError) else clients.describe(error)
            lane = Lane((header(record, ACCOUNT) or b"").decode("utf-8", "replace"))
        is_first = len(partition.progress) == 1
        if is_first and partition.suspect_until is not None and partition.progress.alone >= ALONE_MAX:
            poison = f"{limits.UNCLEAN_DEATHS_MAX} workers died on it"
        partition.jobs[record.offset] = self._queues.add(lane, _Item(partition, record, poison))

    # ── working ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        """Begin whatever may run now."""
        if self._is_draining or self._is_between or self._changed.is_set():
            return
        # A suspect whose record has not been read yet holds nobody up: with the buffer full of others' records, or its
        # partition out of reach, it never would be, and nothing would move again.
        if any(self._partitions[part].progress.first_open() is not None for part in self._suspects):
            self._begin_alone()
            return
        now_s = self._clock.monotonic()
        while self.running < self._in_flight_max:
            if (job := self._queues.begin(now_s)) is None:
                self._wake(now_s)
                return
            self._launch(job, self._run(job))

    def _wake(self, now_s: float) -> None:
        """Begin again when the first lane that is held back may go on."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        if (until_s := self._queues.held_until) is not None:
            self._waking = asyncio.get_running_loop().call_later(until_s - now_s, self._begin)

    def _begin_alone(self) -> None:
        """After an unclean end: the first open record of a partition runs while nothing else does."""
        if self.running:
            return
        for part in self._suspects:
            partition = self._partitions[part]
            first = partition.progress.first_open()
            job = partition.jobs.get(first) if first is not None else None
            if job is not None:
                job.is_void = True
                self._launch(job, self._run_alone(job))
                return

    def _acquit(self, partition: _Partition) -> None:
        partition.suspect_until = None
        self._suspects.pop(partition.part, None)

    def _launch(self, job: Job[_Item], work: Any) -> None:
        assert self._tasks is not None
        self.running += 1
        self._idle.clear()
        job.what.task = self._tasks.create_task(work)
        job.what.task.add_done_callback(lambda _task: self._ended(job))

    def _ended(self, job: Job[_Item]) -> None:
        self.running -= 1
        if not job.is_void:
            self._queues.over(job)
        self._room.set()
        if not self.running:
            self._idle.set()
        self._begin()

    async def _run_alone(self, job: Job[_Item]) -> None:
        partition = job.what.partition
        if job.what.poison is None:
            partition.progress.alone += 1
            try:
                await self._commit([partition], is_clean=False)
            except MillraceError as error:
                log.warning("lanes.alone.uncommitted reason=%s", error)
        await self._run(job)

    async def _run(self, job: Job[_Item]) -> None:
        """One record, until its outputs are acked, or it is parked, or its partition stopped."""
        item = job.what
        outputs = await self._outputs(item)
        # An endpoint takes so many at once until it answers: that it did has yet to be written is not its concern.
        if not job.is_void and self._queues.left(job):
            self._begin()
        if await self._emit(item, outputs):
            item.partition.jobs.pop(item.record.offset, None)
            item.partition.progress.finished(item.record.offset)
            if item.partition.suspect_until is not None:
                self._acquit(item.partition)
            self._release_held(item.partition)

    async def _outputs(self, item: _Item) -> list[Output]:
        """The one place where an error of the work becomes: again, or a dead letter."""
        attempt = failures = 0
        while True:
            if item.poison is not None:
                return self._letter(item, item.poison)
            try:
                await self._in_force(item.record)
                return list(await self._work(item.record))
            except Reject as error:
                item.poison = str(error)
            except (Retry, Stale) as error:
                log.info("lanes.again reason=%s", error)
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
            except Exception as error:
                failures += 1
                log.exception("lanes.work.failed topic=%s offset=%d", item.record.topic, item.record.offset)
                if failures >= FAILURES_MAX:
                    item.poison = clients.describe(error)
                else:
                    await asyncio.sleep(backoff_s(failures))

    async def _in_force(self, record: Received) -> None:
        """Work is done on a view at least as new as the one that asked for it."""
        stamp = header(record, CONTROL)
        if self._view is not None and stamp is not None and stamp.isdigit() and int(stamp) > self._view.position:
            await self._view.passed(int(stamp), timeout_s=limits.CONTROL_WAIT_S_MAX)

    def _letter(self, item: _Item, reason: str) -> list[Output]:
        part = item.partition.part
        self._observer.dead_letter(part[0], part[1], item.record.offset, reason)
        facts = self._on_dead_letter(item.record, reason) if self._on_dead_letter else ()
        return [dead_letter(item.record, reason), *facts]

    async def _emit(self, item: _Item, outputs: list[Output]) -> bool:
        """Write until acked: the effect was had, so it is not had again for want of a broker. False = not possible."""
        attempt = 0
        while outputs:
            try:
                await self._producer.write(outputs)
                return True
            except Reject as error:
                if item.poison is not None:
                    why = f"offset {item.record.offset} can be neither handled ({item.poison}) nor parked ({error})"
                    self._stop(item.partition.part, why)
                    return False
                item.poison = str(error)
                outputs = self._letter(item, item.poison)
            except Retry:
                await asyncio.sleep(backoff_s(attempt))
                attempt += 1
        return True

    async def _drain(self) -> None:
        self._is_draining = True
        if self.running:
            await pause(self._idle, DRAIN_S_MAX)

    # ── positions ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            if self._is_between or self._changed.is_set():
                continue  # what is held may be another's by now, and further than ours
            mine = [each for each in self._partitions.values() if each.part in self._owned]
            try:
                await self._commit(mine, is_clean=False)
            except MillraceError as error:
                log.warning("lanes.commit.failed group=%s reason=%s", self._group, error)
            self._tell(mine)

    async def _commit(self, partitions: Sequence[_Partition], *, is_clean: bool) -> None:
        async with self._committing:
            due = {}
            for each in partitions:
                at = each.progress.position
                commit = at, encode(at, each.progress.mark(is_clean=is_clean))
                if commit != each.committed:
                    due[each.part] = commit
            await self._membership.commit(due)
            for each in partitions:
                each.committed = due.get(each.part, each.committed)

    def _tell(self, partitions: Sequence[_Partition]) -> None:
        self._observer.in_flight(self._group, self.running)
        now = self._clock.monotonic()
        if now - self._told_lag_at < LAG_EVERY_S:
            return
        self._told_lag_at = now
        for each in partitions:
            if each.part not in self._feed.parts:
                continue
            first = each.progress.first_open()
            job = each.jobs.get(first) if first is not None else None
            age_s = max(0.0, (self._clock.now_ms() - job.what.record.timestamp) / 1000) if job else 0.0
            self._observer.lag(*each.part, max(0, self._feed.end(each.part) - each.progress.position), age_s)

    # ── coming and going ────────────────────────────────────────────────────────────────────────────────────────────

    def _assigned(self, owned: frozenset[Part]) -> None:
        self._owned = owned
        self._is_between = False
        self._changed.set()

    async def _revoked(self, _revoked: frozenset[Part]) -> None:
        """Begin nothing more, and say on the log how far we are while the group still takes it. What runs goes on."""
        self._owned = frozenset()
        self._is_between = True
        try:
            async with asyncio.timeout(REVOKE_S_MAX):
                await self._commit(tuple(self._partitions.values()), is_clean=True)
        except (MillraceError, TimeoutError) as error:
            log.warning("lanes.revoked.uncommitted group=%s reason=%s", self._group, clients.describe(error))

    async def _adopt(self) -> None:
        """Take over what is ours now. When it fails, or the assignment changes meanwhile, it is due again."""
        owned = self._owned
        for partition in [each for each in self._partitions.values() if each.part not in owned]:
            self._drop(partition)
        await self._open_partitions(owned)
        self._feed.set({part: self._read_from(each) for part, each in self._partitions.items()})
        if owned is self._owned:
            self._changed.clear()
        self._begin()

    @staticmethod
    def _read_from(partition: _Partition) -> int:
        return partition.held[-1].offset + 1 if partition.held else partition.progress.next

    async def _open_partitions(self, owned: frozenset[Part]) -> None:
        parts = {self._feed.tp(part): part for part in sorted(owned) if part not in self._stopped}
        async with Admin(self._cluster) as admin:
            committed = await admin.committed_at(self._group, parts)
            ends = await admin.ends(parts, read_committed=True)
        for tp, part in parts.items():
            at = committed[tp].offset, committed[tp].metadata
            if at[0] < 0:
                self._stop(part, f"no position in group {self._group}: run `millrace topics`")
                continue
            known = self._partitions.get(part)
            if known is not None and known.committed == at:
                continue  # nobody else worked on it meanwhile
            if known is not None:
                self._drop(known)
            await self._remember(part, at[0])
            self._partitions[part] = self._open(part, at, ends[tp])
        # From here on, to be found by the next owner means that this one died.
        await self._commit(tuple(self._partitions.values()), is_clean=False)

    def _open(self, part: Part, at: tuple[int, str], end: int) -> _Partition:
        mark = decode(*at)
        partition = _Partition(part, Progress(at[0], mark), at)
        if not mark.is_clean and at[0] < end:
            partition.suspect_until = end
            self._suspects[part] = None
        return partition

    async def _remember(self, part: Part, position: int) -> None:
        """Read back what the memory needs: the last records before the position."""
        if self._memory is None:
            return
        self._memory.begin(self._cluster.topic(part[0]), part[1])
        if part[0] not in self._read_back:
            return
        async with Reader(self._cluster) as reader:
            first = (await reader.starts([part]))[part]
            first = max(first, position - limits.READ_BACK_RECORDS_MAX)
            async for batch in reader.read({part: first}, {part: position}):
                for record in batch:
                    self._memory.recall(record)

    def _drop(self, partition: _Partition) -> None:
        """Work no more on it; what runs is cancelled, the next owner does it again."""
        self._partitions.pop(partition.part, None)
        if self._memory is not None:
            self._memory.forget(self._cluster.topic(partition.part[0]), partition.part[1])
        self._suspects.pop(partition.part, None)
        partition.held.clear()
        for job in partition.jobs.values():
            if job.what.task is not None:
                job.what.task.cancel()
            else:
                job.is_void = True
        partition.jobs.clear()

    def _stop(self, part: Part, reason: str) -> None:
        """For good, and loudly: a human must look. The other partitions go on."""
        if part in self._stopped:
            return
        self._stopped[part] = reason
        partition = self._partitions.get(part)
        if partition is not None:
            self._drop(partition)
        if part in self._feed.parts:
            self._feed.drop(part)
        log.error("partition.stopped group=%s topic=%s partition=%d reason=%s", self._group, *part, reason)
        self._observer.stopped(*part, reason)
