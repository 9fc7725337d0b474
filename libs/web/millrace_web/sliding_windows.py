"""How many requests there were within the last seconds: the port, and counting in this process.

A minute is counted exactly: at most so many within any 60 seconds. A longer window, whose requests are too many to be
remembered one by one, is two counters: that of the span under way, and that of the one before, weighted by how much of
it still lies within the window. Not here: counting together with other processes (`shared_windows`).
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Protocol

from millrace_core import limits
from millrace_core.clock import Clock
from millrace_web.rate_plans import Window


@dataclass(frozen=True, slots=True)
class Counted:
    """What one window says of one request."""

    window: Window
    is_allowed: bool
    remaining: int
    reset_in_s: float
    """Until what was counted first leaves the window, and one more request fits."""


class Windows(Protocol):
    """Counts requests of keys."""

    async def take(self, key: str, windows: Sequence[Window]) -> Sequence[Counted]:
        """Count one request in each window, in order, up to the first that refuses it: there nothing is taken. Raises
        Retry when the store does not answer."""
        ...


def is_exact(window: Window) -> bool:
    """Whether each request of the window is remembered."""
    return window.seconds <= limits.WINDOW_EXACT_S_MAX


class _Exact:
    """When each request was, the oldest first."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: deque[float] = deque()

    def take(self, window: Window, now: float) -> Counted:
        while self.at and self.at[0] <= now - window.seconds:
            self.at.popleft()
        is_allowed = len(self.at) < window.allowed
        if is_allowed:
            self.at.append(now)
        return Counted(window, is_allowed, max(window.allowed - len(self.at), 0), self.at[0] + window.seconds - now)

    def is_idle(self, window: Window, now: float) -> bool:
        return not self.at or self.at[-1] <= now - window.seconds


class _Weighted:
    """Two counters: of the span that began at `since`, and of the one before."""

    __slots__ = ("before", "now", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.before = 0
        self.now = 0

    def take(self, window: Window, now: float) -> Counted:
        self._move(window, now)
        used = self._used(window, now)
        is_allowed = used < window.allowed
        if is_allowed:
            self.now += 1
            used += 1
        left_s = self.since + window.seconds - now
        reset_s = left_s if not self.before else left_s % (window.seconds / self.before)
        return Counted(window, is_allowed, max(window.allowed - used, 0), reset_s)

    def is_idle(self, window: Window, now: float) -> bool:
        return now - self.since >= 2 * window.seconds

    def _move(self, window: Window, now: float) -> None:
        spans = int((now - self.since) / window.seconds)
        if spans:
            self.before = self.now if spans == 1 else 0
            self.now = 0
            self.since += spans * window.seconds

    def _used(self, window: Window, now: float) -> int:
        return floor(self.before * (1 - (now - self.since) / window.seconds)) + self.now


class OwnWindows:
    """Counting in this process alone. What is idle is forgotten when there is too much of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counters: dict[tuple[str, Window], _Exact | _Weighted] = {}
        self._room = limits.WINDOWS_COUNTED_MAX

    def __len__(self) -> int:
        return len(self._counters)

    async def take(self, key: str, windows: Sequence[Window]) -> Sequence[Counted]:
        """As the port says; it never has to wait."""
        now = self._clock.monotonic()
        counted = []
        for window in windows:
            counted.append(self._counter(key, window, now).take(window, now))
            if not counted[-1].is_allowed:
                break
        return counted

    def _counter(self, key: str, window: Window, now: float) -> _Exact | _Weighted:
        found = self._counters.get((key, window))
        if found is None:
            if len(self._counters) >= self._room:
                self._forget(now)
            found = self._counters[key, window] = _Exact() if is_exact(window) else _Weighted(now)
        return found

    def _forget(self, now: float) -> None:
        self._counters = {
            (key, window): counter
            for (key, window), counter in self._counters.items()
            if not counter.is_idle(window, now)
        }
        # So that those who are all awake are not looked through with every new one.
        self._room = max(limits.WINDOWS_COUNTED_MAX, 2 * len(self._counters))
