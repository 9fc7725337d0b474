"""Who may begin, and when: the flow control of the subscriptions of one partition, decided over the task's state.

A held run asks, is told to begin (or that it never will), and is released when it has ended. In between it stands in a
queue of its subscription's key: *open* while a debounce or a batch still gathers events into it, then *ready* until
drain, concurrency and throttle let it go. Of the ready ones goes first: who is of a key below its floor, then the more
urgent, then the older. What an open one gathers is absorbed at once, so that a burst of any length is one entry. An
account's own flow is a queue like a subscription's, under the account's id; a run asks there after its subscription's.

The truth is the task's state: entries `flow/`, `key/`, `wait/`, `live/` and `item/` (inputs of a list). The rest is an
index, made anew by `load`. Whatever asks gets an answer or waits, and says for what (RunWaiting): when it begins to
wait, when the reason changes for the first of its key, and once a day. Not here: clocks, topics, transactions.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from millrace_core import limits
from millrace_core.flow import AT_ONCE
from millrace_core.handling import State
from millrace_core.messages import (
    AbsorbRun,
    AdmitRun,
    AskAdmission,
    CancelAdmissions,
    CancelRun,
    FlowControl,
    Raw,
    RefuseRun,
    ReleaseAdmission,
    RunWaiting,
    WaitReason,
    decode,
    encode,
)
from millrace_core.timers import TimerQueue
from millrace_orchestrator import throttle as throttles
from millrace_orchestrator.queues import Key, Queue, key_id, place_of, queue_id
from millrace_orchestrator.waiting import (
    LISTS,
    Came,
    Gathering,
    Headers,
    Kept,
    Kind,
    Live,
    Mark,
    Waiting,
    decode_kept,
    decode_live,
    decode_waiting,
    encode_entry,
)

_FLOW, _KEY, _WAIT, _LIVE, _ITEM = b"flow/", b"key/", b"wait/", b"live/", b"item/"


class Flows(Protocol):
    """The flows in force."""

    version: int

    def get(self, account: str, id: str) -> FlowControl | None: ...


class Said(NamedTuple):
    """What a run is told, or what is told of it; with headers that go along."""

    message: AdmitRun | AbsorbRun | RefuseRun | CancelRun | RunWaiting
    headers: Headers = ()


class HeldBack(NamedTuple):
    """So many runs, and when the event of the one that waits longest was received, or began to gather others."""

    runs: int
    oldest_at: int


class Admissions:
    """The queues of one task. Made anew, and loaded, for each of its lives; `due` decides, the others only take in."""

    def __init__(
        self,
        flows: Flows,
        *,
        waiting_max: int = limits.FLOW_WAITING_MAX,
        keys_max: int = limits.FLOW_KEYS_MAX,
    ) -> None:
        self._flows = flows
        self._waiting_max = waiting_max
        self._keys_max = keys_max
        self._version = -1
        self._queues: dict[bytes, Queue] = {}
        self._keys: dict[bytes, Key] = {}
        self._turns: dict[bytes, Queue] = {}
        self._cancelling: dict[bytes, Key] = {}
        self._bytes = 0
        self._timers = TimerQueue()
        self._told = TimerQueue()

    # ── taking in ───────────────────────────────────────────────────────────────────────────────────────────────────
    def load(self, state: State) -> None:
        """Make the index of what is in the state. Call it once, before all else. The flows may have changed meanwhile:
        the first `due` looks at all queues."""
        for id, value in state.scan(_FLOW):
            account, subscription = _names(id, _FLOW)
            self._queue(account, subscription).flow = decode(value, FlowControl)
        for id, value in state.scan(_KEY):
            kept = decode_kept(value)
            key = self._key(*_names(id, _KEY), kept.key)
            key.spent, key.mark, key.is_kept = kept.spent, kept.mark, True
            if key.mark is not None:
                self._cancelling[key.id] = key
        for id, value in state.scan(_LIVE):
            key = self._key(*_names(id, _LIVE), decode_live(value).key)
            key.running += 1
            key.queue.running += 1
        for id, value in state.scan(_WAIT):
            waiting = decode_waiting(value)
            key = self._key(*_names(id, _WAIT), waiting.key)
            self._enqueue(key, waiting)

    def ask(self, state: State, asked: AskAdmission, headers: Headers, *, now_ms: int) -> Sequence[Said]:
        """A held run asks. What is told now is that it was absorbed, refused or cancelled, or that another was absorbed
        by it."""
        queue = self._queue(asked.account, asked.subscription, state)
        self._turns[queue.id] = queue
        key = queue.keys.get(key_id(queue, asked.key))
        if key is None and len(queue.keys) >= self._keys_max:
            return [_refused(asked, f"the flow of {asked.subscription} holds {self._keys_max} keys", headers)]
        key = key or self._key(asked.account, asked.subscription, asked.key)
        came = Came(asked.partition, asked.offset, asked.at)
        if key.mark is not None and came.is_before(key.mark.came):
            return [_cancelled(asked.run, asked.account, key.mark, headers)]
        waiting = Waiting(asked.run, asked.key, asked.priority, came, headers)
        kind = queue.kind
        if kind in LISTS and not asked.bundled:
            kind = None  # matched before the flow made lists
        if key.open is not None:
            joined = self._join(state, key, key.open, waiting, bytes(asked.input), kind, now_ms)
            if joined is not None:
                return joined
        if queue.waiting >= self._waiting_max:
            self._settle(state, key, now_ms)
            reason = f"{self._waiting_max} runs of {asked.subscription} wait already, as many as may"
            return [_refused(asked, reason, headers)]
        if kind is not None:
            size = len(bytes(asked.input))
            waiting = msgspec.structs.replace(waiting, gathering=Gathering(kind, now_ms, now_ms, 1, size))
            if kind in LISTS:
                self._put_item(state, key, waiting.run, came, bytes(asked.input))
        self._put(state, key, waiting)
        self._enqueue(key, waiting)
        self._settle(state, key, now_ms)
        return ()

    def release(self, state: State, released: ReleaseAdmission, *, now_ms: int) -> None:
        """A run has ended: its place is free, whether it was at work or waited."""
        queue = self._queues.get(queue_id(released.account, released.subscription))
        key = None if queue is None else queue.keys.get(key_id(queue, released.key))
        if queue is None or key is None:
            return
        self._turns[queue.id] = queue
        live = key.entry(_LIVE, released.run)
        if state.get(live) is not None:
            state.delete(live)
            key.running -= 1
            queue.running -= 1
        elif (value := state.get(key.entry(_WAIT, released.run))) is not None:
            self._leave(state, key, decode_waiting(value))
        self._settle(state, key, now_ms)

    def cancel(self, state: State, cancel: CancelAdmissions, *, now_ms: int) -> None:
        """An event cancels what came before it under its key: what is here in the next turns, what comes late when
        it comes."""
        queue = self._queue(cancel.account, cancel.subscription, state)
        key = queue.keys.get(key_id(queue, cancel.key))
        if key is None and len(queue.keys) >= self._keys_max:
            return  # nothing of it is here; only what is still on its way would have been reached
        key = key or self._key(cancel.account, cancel.subscription, cancel.key)
        came = Came(cancel.partition, cancel.offset, cancel.at)
        if key.mark is None or not came.is_before(key.mark.came):
            key.mark = Mark(came, cancel.event, now_ms + limits.FLOW_CANCEL_KEPT_MS)
            self._cancelling[key.id] = key
            self._keep(state, key)
        self._settle(state, key, now_ms)

    # ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────
    def next_due_ms(self) -> int | None:
        """When `due` has something to say: 0 = now, None = nothing waits for a time."""
        if self._turns or self._cancelling or (self._queues and self._version != self._flows.version):
            return 0
        return min(
            (at for at in (self._timers.next_due_ms(), self._told.next_due_ms()) if at is not None), default=None
        )

    def due(self, state: State, now_ms: int, limit: int) -> list[Said]:
        """Everything that may happen now, about `limit` things of it, and lists of so many bytes."""
        self._bytes = 0
        if self._version != self._flows.version:
            self._version = self._flows.version
            for queue in list(self._queues.values()):
                self._refresh(state, queue)
        for id in self._timers.take_due(now_ms, limit):
            key = self._keys[id]
            key.blocked_until = 0
            self._turns[key.queue.id] = key.queue
            self._settle(state, key, now_ms)
        said: list[Said] = []
        for key in list(self._cancelling.values()):
            self._cancel_some(state, key, now_ms, limit - len(said), said)
        for queue in list(self._turns.values()):
            before = len(said)
            is_over = self._turn(state, queue, now_ms, limit, said)
            if is_over or len(said) > before:
                self._turns.pop(queue.id, None)
            if not is_over and len(said) > before:
                self._turns[queue.id] = queue  # it goes on behind those that had no turn
        for entry in self._told.take_due(now_ms, max(0, limit - len(said))):
            waiting = decode_waiting(state.get(entry) or b"")
            key = self._keys[entry[len(_WAIT) : entry.rindex(b"/")]]
            said += self._tell(state, key, waiting, now_ms)
        return said

    def _turn(self, state: State, queue: Queue, now_ms: int, limit: int, said: list[Said]) -> bool:
        """Let begin who may, until `limit` things were said, then tell who waits. False = there is more to do."""
        is_over = True
        while not queue.flow.drain and not queue.is_full():
            if len(said) >= limit or self._bytes >= limits.FLOW_TURN_BYTES_MAX:
                is_over = False
                break
            key = self._next(queue, now_ms)
            if key is None:
                break
            self._admit(state, key, now_ms, said)
        else:
            self._look_at_first(queue)
        # Whoever asked in this transaction must have a place when it is over; of the others a change may go untold.
        for run, key in [*queue.fresh.items(), *islice(queue.firsts.items(), max(0, limit - len(said)))]:
            value = state.get(key.entry(_WAIT, run))
            if value is not None:
                said += self._tell(state, key, decode_waiting(value), now_ms)
        queue.fresh.clear()
        queue.firsts.clear()
        return is_over

    def _next(self, queue: Queue, now_ms: int) -> Key | None:
        """The key whose first goes next; the others' firsts are looked at in passing."""
        while queue.ranks:
            rank = heapq.heappop(queue.ranks)
            key = queue.keys.get(rank[-1])
            if key is None or key.ranked != rank:
                continue
            key.ranked = None
            run = self._first(key)
            if run is None:
                continue
            if queue.is_at_ceiling(key):  # a release ranks it again
                queue.firsts[run] = key
                continue
            free_at = now_ms
            if queue.flow.throttle is not None:
                free_at = throttles.free_at(key.spent, queue.flow.throttle, now_ms)
            if free_at > now_ms:  # its timer ranks it again
                queue.firsts[run] = key
                key.blocked_until = free_at
                self._set_timer(key)
                continue
            return key
        return None

    def _look_at_first(self, queue: Queue) -> None:
        while queue.ranks:
            key = queue.keys.get(queue.ranks[0][-1])
            if key is not None and key.ranked == queue.ranks[0]:
                if (run := self._first(key)) is not None:
                    queue.firsts[run] = key
                return
            heapq.heappop(queue.ranks)

    def _admit(self, state: State, key: Key, now_ms: int, said: list[Said]) -> None:
        queue = key.queue
        run = key.ready[0][-1]
        waiting = decode_waiting(state.get(key.entry(_WAIT, run)) or b"")
        if key.mark is not None and waiting.came.is_before(key.mark.came):
            said.append(_cancelled(run, queue.account, key.mark, waiting.headers))
            self._leave(state, key, waiting)
            self._settle(state, key, now_ms)
            return
        input = self._list(state, key, waiting) if waiting.inputs else b"null"
        self._bytes += len(input)
        said.append(
            Said(
                AdmitRun(
                    run=run,
                    account=queue.account,
                    subscription=queue.subscription,
                    bundled=waiting.inputs > 0,
                    input=Raw(input),
                ),
                waiting.headers,
            )
        )
        self._leave(state, key, waiting)
        state.put(key.entry(_LIVE, run), encode_entry(Live(key.name, waiting.came)))
        key.running += 1
        queue.running += 1
        if queue.flow.throttle is not None:
            key.spent = throttles.spend(key.spent, queue.flow.throttle, now_ms)
            self._keep(state, key)
        self._settle(state, key, now_ms)

    def _cancel_some(self, state: State, key: Key, now_ms: int, limit: int, said: list[Said]) -> None:
        """Cancel what the mark reaches, at most `limit`; the rest in the next turn."""
        mark, queue = key.mark, key.queue
        before = len(said)
        if mark is not None:
            for entry, value in list(state.scan(key.entry(_LIVE, ""))):
                live = decode_live(value)
                if len(said) - before < limit and not live.is_cancelled and live.came.is_before(mark.came):
                    state.put(entry, encode_entry(msgspec.structs.replace(live, is_cancelled=True)))
                    said.append(_cancelled(_run_of(entry), queue.account, mark))
            for _, value in list(state.scan(key.entry(_WAIT, ""))):
                waiting = decode_waiting(value)
                if len(said) - before < limit and waiting.came.is_before(mark.came):
                    said.append(_cancelled(waiting.run, queue.account, mark, waiting.headers))
                    self._leave(state, key, waiting)
        if len(said) - before < limit:
            del self._cancelling[key.id]
        self._turns[queue.id] = queue
        self._settle(state, key, now_ms)

    def _tell(self, state: State, key: Key, waiting: Waiting, now_ms: int) -> Iterator[Said]:
        """What holds it back, unless that was told less than a day ago."""
        queue = key.queue
        reason, until = self._reason(key, waiting, now_ms)
        is_old = now_ms >= waiting.told_at + limits.FLOW_TOLD_EVERY_MS
        if (reason, until) == (waiting.reason, waiting.until) and not is_old:
            return
        self._put(state, key, msgspec.structs.replace(waiting, reason=reason, until=until, told_at=now_ms))
        yield Said(
            RunWaiting(
                run=waiting.run,
                account=queue.account,
                at=now_ms,
                subscription=queue.subscription,
                key=key.name,
                reason=reason,
                until=until,
            ),
            waiting.headers,
        )

    def _reason(self, key: Key, waiting: Waiting, now_ms: int) -> tuple[WaitReason, int | None]:
        queue, throttle = key.queue, key.queue.flow.throttle
        if waiting.gathering is not None:
            return waiting.gathering.reason, queue.closes_at(waiting.gathering)
        reason, until = queue.holds(key), None
        if reason in ("throttle", "account_throttle") and throttle is not None:
            until = throttles.free_at(key.spent, throttle, now_ms)
        return reason, until

    def held(self) -> Mapping[WaitReason, HeldBack]:
        """What waits now, by what it waits for. Walks over everyone who waits: some ms for 100,000."""
        found: dict[WaitReason, HeldBack] = {}
        for key in self._keys.values():
            ready = key.waiting
            if key.open is not None and (gathering := key.open.gathering) is not None:
                ready -= 1
                found[gathering.reason] = _with(found.get(gathering.reason), 1, gathering.opened_at)
            if ready:
                reason = key.queue.holds(key)
                found[reason] = _with(found.get(reason), ready, key.oldest_at())
        return found

    # ── gathering ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _join(
        self, state: State, key: Key, open: Waiting, new: Waiting, input: bytes, kind: Kind | None, now_ms: int
    ) -> Sequence[Said] | None:
        """One more for what is open; None when that has to be closed instead."""
        queue, gathering = key.queue, open.gathering
        assert gathering is not None
        is_list = gathering.kind in LISTS
        bytes_after = gathering.bytes + len(input) + 1
        is_over = now_ms >= queue.closes_at(gathering) or (is_list and bytes_after > limits.FLOW_BATCH_BYTES_MAX)
        if kind != gathering.kind or is_over:
            self._close(state, key)
            return None
        gathered = Gathering(kind, gathering.opened_at, now_ms, gathering.count + 1, bytes_after)
        priority = min(open.priority, new.priority)
        # They may come in another order than their events did.
        is_earlier = new.came.is_before(open.came)
        if not is_list and is_earlier == (kind == "first"):
            self._leave(state, key, open)
            waiting, absorbed = msgspec.structs.replace(new, priority=priority, gathering=gathered), open
            self._put(state, key, waiting)
            self._enqueue(key, waiting)
        else:
            waiting, absorbed = msgspec.structs.replace(open, priority=priority, gathering=gathered), new
            if is_list:
                self._put_item(state, key, waiting.run, new.came, input)
            self._put(state, key, waiting)
            key.open = waiting
            queue.firsts[waiting.run] = key
            if is_list and gathered.count >= queue.items_max():
                self._close(state, key)
        self._settle(state, key, now_ms)
        return [Said(AbsorbRun(run=absorbed.run, account=queue.account, into=waiting.run), absorbed.headers)]

    def _close(self, state: State, key: Key) -> None:
        """The open one is ready."""
        open, key.open = key.open, None
        assert open is not None
        assert open.gathering is not None
        inputs = open.gathering.count if open.gathering.kind in LISTS else 0
        waiting = msgspec.structs.replace(open, gathering=None, inputs=inputs)
        self._put(state, key, waiting)
        heapq.heappush(key.ready, place_of(waiting))

    def _put_item(self, state: State, key: Key, run: str, came: Came, input: bytes) -> None:
        """In the order in which their events were received."""
        state.put(b"%b/%020d/%010d/%020d" % (key.entry(_ITEM, run), came.at, came.partition, came.offset), input)

    def _list(self, state: State, key: Key, waiting: Waiting) -> bytes:
        return b"[%b]" % b",".join(value for _, value in state.scan(key.entry(_ITEM, waiting.run) + b"/"))

    # ── keeping ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _put(self, state: State, key: Key, waiting: Waiting) -> None:
        state.put(key.entry(_WAIT, waiting.run), encode_entry(waiting))
        self._tell_again(key, waiting)

    def _enqueue(self, key: Key, waiting: Waiting) -> None:
        key.waiting += 1
        key.queue.waiting += 1
        if waiting.gathering is not None:
            key.open = waiting
        else:
            heapq.heappush(key.ready, place_of(waiting))
        if waiting.told_at:
            self._tell_again(key, waiting)
        else:
            key.queue.fresh[waiting.run] = key

    def _tell_again(self, key: Key, waiting: Waiting) -> None:
        """A day after it was told."""
        if waiting.told_at:
            entry = key.entry(_WAIT, waiting.run)
            self._told.discard(entry)
            self._told.add(entry, waiting.told_at + limits.FLOW_TOLD_EVERY_MS)

    def _leave(self, state: State, key: Key, waiting: Waiting) -> None:
        """It waits no longer."""
        entry = key.entry(_WAIT, waiting.run)
        state.delete(entry)
        if waiting.has_items:
            for item, _ in list(state.scan(key.entry(_ITEM, waiting.run) + b"/")):
                state.delete(item)
        self._told.discard(entry)
        key.waiting -= 1
        key.queue.waiting -= 1
        if waiting.gathering is None:
            key.gone.add(waiting.run)
        elif key.open is not None and key.open.run == waiting.run:
            key.open = None

    def _keep(self, state: State, key: Key) -> None:
        """Write what is kept of the key itself, or forget it."""
        if key.spent or key.mark is not None:
            state.put(_KEY + key.id, encode_entry(Kept(key.name, key.spent, key.mark)))
            key.is_kept = True
        elif key.is_kept:
            state.delete(_KEY + key.id)
            key.is_kept = False

    def _settle(self, state: State, key: Key, now_ms: int) -> None:
        """Close what is due, give the key its place, set its timer; or forget it when nothing is left of it."""
        queue = key.queue
        if key.open is not None:
            assert key.open.gathering is not None
            if queue.closes_at(key.open.gathering) <= now_ms:
                self._close(state, key)
        if not key.waiting and not key.running and key.id not in self._cancelling:
            if throttles.over_at(key.spent, queue.flow.throttle) <= now_ms:
                key.spent = ()
            if key.mark is not None and key.mark.until <= now_ms:
                key.mark = None
            if not key.spent and key.mark is None:
                self._forget(state, key)
                return
        self._rank(key)
        self._set_timer(key)

    def _rank(self, key: Key) -> None:
        run, queue = self._first(key), key.queue
        if run is None or key.blocked_until or queue.is_at_ceiling(key):
            return
        rank = (queue.has_floor(key), *key.ready[0][:-1], key.id)
        if rank != key.ranked:
            key.ranked = rank
            heapq.heappush(queue.ranks, rank)

    def _first(self, key: Key) -> str | None:
        """Who of the ready ones goes first; those who have left are passed over."""
        while key.ready:
            run = key.ready[0][-1]
            if run not in key.gone:
                return run
            key.gone.discard(run)
            heapq.heappop(key.ready)
        return None

    def _set_timer(self, key: Key) -> None:
        queue = key.queue
        at: list[int] = []
        if key.open is not None and key.open.gathering is not None:
            at.append(queue.closes_at(key.open.gathering))
        if key.blocked_until:
            at.append(key.blocked_until)
        if not key.waiting and not key.running:
            over = throttles.over_at(key.spent, queue.flow.throttle)
            at.append(max(over, 0 if key.mark is None else key.mark.until))
        self._timers.discard(key.id)
        if at:
            self._timers.add(key.id, min(at))

    def _forget(self, state: State, key: Key) -> None:
        queue = key.queue
        self._keep(state, key)
        self._timers.discard(key.id)
        del queue.keys[key.id], self._keys[key.id]
        if not queue.keys:
            state.delete(_FLOW + queue.id)
            self._turns.pop(queue.id, None)
            del self._queues[queue.id]

    def _refresh(self, state: State, queue: Queue) -> None:
        """Take the flow in force. A deleted subscription's last one stays for what waits, only that it flows again."""
        flow = self._flows.get(queue.account, queue.subscription)
        if flow is None:
            flow = msgspec.structs.replace(queue.flow, drain=False)
        self._turns[queue.id] = queue
        if flow != queue.flow:
            queue.flow = flow
            state.put(_FLOW + queue.id, encode(flow))
        queue.ranks.clear()
        for key in queue.keys.values():
            key.ranked, key.blocked_until = None, 0
            if (run := self._first(key)) is not None:
                queue.firsts[run] = key
            self._rank(key)
            self._set_timer(key)  # what shall gather no more is due at once, some in each turn

    def _queue(self, account: str, subscription: str, state: State | None = None) -> Queue:
        id = queue_id(account, subscription)
        queue = self._queues.get(id)
        if queue is None:
            flow = self._flows.get(account, subscription) or AT_ONCE
            queue = self._queues[id] = Queue(account, subscription, id, flow)
            if state is not None:
                state.put(_FLOW + id, encode(flow))
        return queue

    def _key(self, account: str, subscription: str, name: str) -> Key:
        queue = self._queue(account, subscription)
        id = key_id(queue, name)
        key = queue.keys.get(id)
        if key is None:
            key = queue.keys[id] = self._keys[id] = Key(queue, name, id)
        return key


def _with(others: HeldBack | None, runs: int, oldest_at: int) -> HeldBack:
    return (
        HeldBack(runs, oldest_at) if others is None else HeldBack(others.runs + runs, min(others.oldest_at, oldest_at))
    )


def _names(entry: bytes, prefix: bytes) -> tuple[str, str]:
    account, subscription = entry[len(prefix) :].split(b"/")[:2]
    return account.decode(), subscription.decode()


def _run_of(entry: bytes) -> str:
    return entry[entry.rindex(b"/") + 1 :].decode()


def _refused(asked: AskAdmission, reason: str, headers: Headers) -> Said:
    return Said(RefuseRun(run=asked.run, account=asked.account, reason=reason), headers)


def _cancelled(run: str, account: str, mark: Mark, headers: Headers = ()) -> Said:
    return Said(CancelRun(run=run, account=account, reason=f"cancelled by {mark.event}"), headers)
