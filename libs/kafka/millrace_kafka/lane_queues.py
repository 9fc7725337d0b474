"""In what order slow work is begun: fair between accounts, bounded by lane, in order inside a key where asked. Pure.

Deficit round robin over accounts in which every record costs one: each account with something to do begins one record
in turn, and inside an account its lanes take turns, so neither a busy account nor a busy endpoint can hold up another.
A lane may also be held back: until a moment that `hold` names it begins nothing, and takes no one else's turn.
Not here: how many run at once in all, and what they do (`lanes`).
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

import msgspec

from millrace_core import limits


class Lane(msgspec.Struct, frozen=True, gc=False):
    """Where a record belongs. Records of one account and `key` share a lane: at most `concurrency` of them run at
    once; `ordered` = one after the other, in log order. Without a key a record has a lane of its own."""

    account: str
    key: str | None = None
    concurrency: int = limits.LANES_IN_FLIGHT_MAX
    ordered: bool = False

    @property
    def width(self) -> int:
        """How many may run at once."""
        return 1 if self.ordered else max(1, self.concurrency)


T = TypeVar("T")


class _Lane(Generic[T]):
    __slots__ = ("account", "is_ordered", "is_ready", "key", "running", "waiting", "width")

    def __init__(self, account: "_Account[T]", key: str | None) -> None:
        self.account = account
        self.key = key
        self.width = 1
        self.is_ordered = False
        self.running = 0
        self.waiting: deque[Job[T]] = deque()
        self.is_ready = False


class _Account(Generic[T]):
    __slots__ = ("is_ready", "lanes", "name", "ready", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: dict[str, _Lane[T]] = {}
        self.ready: deque[_Lane[T]] = deque()
        self.running = 0
        self.is_ready = False


class Job(Generic[T]):
    """One piece of work in the queues. `is_void` takes it out of them wherever it stands."""

    __slots__ = ("_has_left", "_lane", "is_void", "what")

    def __init__(self, what: T, lane: "_Lane[T]") -> None:
        self.what = what
        self.is_void = False
        self._lane = lane
        self._has_left = False


class LaneQueues(Generic[T]):
    """`add` what is to be done, `begin` the next, tell when it is `over`. At most `account_max` pieces of one account
    run at once, so that slow work of one leaves room for the others. `hold` is asked when the turn of a piece has come:
    its lane waits until the moment it answers, and is then asked again; one that is not ahead lets the piece begin."""

    def __init__(
        self,
        *,
        account_max: int = limits.LANES_IN_FLIGHT_MAX,
        hold: Callable[[T, float], float] | None = None,
    ) -> None:
        self._account_max = account_max
        self._hold = hold
        self._held: list[tuple[float, int, _Lane[T]]] = []
        self._tie = count()
        self._accounts: dict[str, _Account[T]] = {}
        self._turn: deque[_Account[T]] = deque()

    def add(self, lane: Lane, what: T) -> Job[T]:
        """Queue behind what its lane holds. The newest record decides the lane's width, and whether it is ordered."""
        account = self._accounts.get(lane.account)
        if account is None:
            account = self._accounts[lane.account] = _Account(lane.account)
        own = account.lanes.get(lane.key) if lane.key is not None else None
        if own is None:
            own = _Lane(account, lane.key)
            if lane.key is not None:
                account.lanes[lane.key] = own
        own.width, own.is_ordered = lane.width, lane.ordered
        job = Job(what, own)
        own.waiting.append(job)
        self._offer(own)
        return job

    @property
    def held_until(self) -> float | None:
        """When the first lane that is held back is asked again; None = there is none."""
        return self._held[0][0] if self._held else None

    def begin(self, now_s: float = 0.0) -> Job[T] | None:
        """The next piece of work that may run now, counted as running; None when nothing may."""
        self._let_go(now_s)
        while self._turn:
            account = self._turn.popleft()
            account.is_ready = False
            if account.running >= self._account_max:
                continue  # `over` brings it back
            job = self._begin_of(account, now_s)
            if account.ready and not account.is_ready:
                account.is_ready = True
                self._turn.append(account)
            if job is not None:
                return job
        return None

    def _begin_of(self, account: _Account[T], now_s: float) -> Job[T] | None:
        while account.ready:
            lane = account.ready.popleft()
            lane.is_ready = False
            while lane.waiting and lane.waiting[0].is_void:
                lane.waiting.popleft()
            if not lane.waiting:
                self._forget(lane)
                continue
            if self._hold is not None and (until_s := self._hold(lane.waiting[0].what, now_s)) > now_s:
                lane.is_ready = True  # it stands among those held back, and is not offered before
                heapq.heappush(self._held, (until_s, next(self._tie), lane))
                continue
            job = lane.waiting.popleft()
            lane.running += 1
            account.running += 1
            self._offer(lane)
            return job
        return None

    def left(self, job: Job[T]) -> bool:
        """What the lane is for is done, though the work is not over: the next of its lane may begin, unless they are
        ordered. The account's place is held until it is `over`. True = there is a next one."""
        lane = job._lane
        if lane.is_ordered or job._has_left:
            return False
        job._has_left = True
        lane.running -= 1
        self._offer(lane)
        return bool(lane.waiting)

    def over(self, job: Job[T]) -> None:
        """Work that `begin` gave out has ended."""
        lane = job._lane
        account = lane.account
        if not job._has_left:
            lane.running -= 1
        account.running -= 1
        self._offer(lane)
        if account.ready and not account.is_ready:
            account.is_ready = True
            self._turn.append(account)
        self._forget(lane)

    def _let_go(self, now_s: float) -> None:
        while self._held and self._held[0][0] <= now_s:
            _, _, lane = heapq.heappop(self._held)
            lane.is_ready = False
            self._offer(lane)

    def _offer(self, lane: _Lane[T]) -> None:
        if lane.is_ready or not lane.waiting or lane.running >= lane.width:
            return
        lane.is_ready = True
        lane.account.ready.append(lane)
        if not lane.account.is_ready:
            lane.account.is_ready = True
            self._turn.append(lane.account)

    def _forget(self, lane: _Lane[T]) -> None:
        if lane.waiting or lane.running:
            return
        account = lane.account
        if lane.key is not None and account.lanes.get(lane.key) is lane:
            del account.lanes[lane.key]
        if not account.lanes and not account.ready and not account.running:
            self._accounts.pop(account.name, None)
