"""How much of this process one account may fill with what waits, so that it cannot hold up the others. Pure.

The log is first in, first out: behind 100,000 deliveries to an endpoint that hangs stand everyone else's, and no queue
in here can be fair to what it has not read. So an account's deliveries beyond its share are moved to a log of their
own, `deliveries-overflow`, which is read into its own part of the buffer and where they wait for their turn.
A share is as much as is still free (of the partition's room, and of the whole buffer): one account alone takes half,
the next half of the rest, and so on; however many there are, there is room for one more. Shares count for accounts that
are slow: whose oldest delivery here has waited for seconds, or for half of one in which so few were done that the
rest will. A burst that is quickly delivered keeps others waiting for a moment only, and moving it would cost more than
delivering it.
"""

from collections import Counter, deque

from millrace_core import limits

Part = tuple[str, int]


class _Held:
    """What waits in one room: in all, and by account."""

    __slots__ = ("by_account", "room", "total")

    def __init__(self, room: int) -> None:
        self.room = room
        self.total = 0
        self.by_account: Counter[str] = Counter()

    def is_over(self, account: str) -> bool:
        return self.by_account[account] >= self.room - self.total

    def more(self, account: str, count: int) -> None:
        self.total += count
        self.by_account[account] += count
        if self.by_account[account] <= 0:
            del self.by_account[account]


class _Account:
    """When each that waits came, and how many had been done by then. The oldest is counted out first, whichever was
    done: an approximation."""

    __slots__ = ("came", "done")

    def __init__(self) -> None:
        self.came: deque[tuple[float, int]] = deque()
        self.done = 0

    def is_slow(self, now_s: float) -> bool:
        at_s, done_then = self.came[0]
        waited_s, done = now_s - at_s, self.done - done_then
        if waited_s < limits.OVERFLOW_SOON_S:
            return False
        return waited_s >= limits.OVERFLOW_AFTER_S or len(self.came) * waited_s > limits.OVERFLOW_AFTER_S * done


class Shares:
    """What each account has waiting or under way here, in all and in each partition."""

    def __init__(
        self,
        *,
        room: int = limits.DELIVERIES_BUFFERED_MAX,
        partition_room: int = limits.DELIVERIES_PARTITION_MAX,
    ) -> None:
        self._partition_room = partition_room
        self._all = _Held(room)
        self._parts: dict[Part, _Held] = {}
        self._accounts: dict[str, _Account] = {}

    def is_excess(self, part: Part, account: str, now_s: float) -> bool:
        """Whether the account is slow and has as much here as it may."""
        waiting = self._accounts.get(account)
        if waiting is None or not waiting.is_slow(now_s):
            return False
        held = self._parts.get(part)
        return self._all.is_over(account) or (held is not None and held.is_over(account))

    def take(self, part: Part, account: str, now_s: float) -> None:
        """A record of the account waits here from now on."""
        waiting = self._accounts.setdefault(account, _Account())
        waiting.came.append((now_s, waiting.done))
        held = self._parts.get(part)
        if held is None:
            held = self._parts[part] = _Held(self._partition_room)
        held.more(account, 1)
        self._all.more(account, 1)

    def done(self, part: Part, account: str) -> None:
        """One of them was dealt with. One that `forget` has counted out already is not counted out again."""
        waiting = self._accounts.get(account)
        if waiting is not None:
            waiting.done += 1
        self.left(part, account)

    def left(self, part: Part, account: str) -> None:
        """One of them waits elsewhere from now on: no sign of a quick account. Else as `done`."""
        held = self._parts.get(part)
        if held is not None and held.by_account[account] > 0:
            held.more(account, -1)
            self._less(account, 1)

    def forget(self, part: Part) -> None:
        """The partition went to another owner, with all of its records."""
        held = self._parts.pop(part, None)
        if held is not None:
            for account, count in held.by_account.items():
                self._less(account, count)

    def _less(self, account: str, count: int) -> None:
        self._all.more(account, -count)
        came = self._accounts[account].came
        for _ in range(count):
            came.popleft()
        if not came:
            del self._accounts[account]
