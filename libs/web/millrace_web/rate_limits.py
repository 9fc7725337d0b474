"""How often an account may ask, by its plan: GCRA, two numbers an account and window, no timer, no queue.

Each process holds its own share of the rate (the gateway asks nobody on the way of an event), so `share` is one over
the number of processes. The burst is the whole window's count; what was used comes back evenly. The memory is bounded:
accounts whose limit is full again are forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType

from millrace_core.clock import Clock

ACCOUNTS_MAX = 100_000
MINUTE_S = 60.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests a minute and a day. A day of None has no bound of its own."""

    name: str
    per_minute: int
    per_day: int | None


PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan("free", 60, 1_000),
            Plan("starter", 120, 10_000),
            Plan("pro", 300, 50_000),
            Plan("business", 600, 200_000),
            # No practical limit: 100,000 a second is more than a process can answer.
            Plan("enterprise", 6_000_000, None),
        )
    }
)
SMALLEST = PLANS["free"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one request: its headers, and when to come back if it is refused."""

    limit: int
    remaining: int
    reset_at: int
    """Unix seconds at which the limit is full again."""
    retry_after_s: int | None
    """None = allowed."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset_at),
        ]


class RateLimits:
    """The accounts' limits in this process."""

    def __init__(self, clock: Clock, *, share: float = 1.0) -> None:
        self._clock = clock
        self._share = share
        # (account, window) → the theoretical arrival time, monotonic seconds: above now = that much is used up.
        self._used_until: dict[tuple[str, float], float] = {}

    def __len__(self) -> int:
        return len(self._used_until)

    def take(self, account: str, plan: str) -> Verdict:
        """Count one request. A refused one takes nothing. An unknown plan has the smallest limits."""
        now = self._clock.monotonic()
        known = PLANS.get(plan, SMALLEST)
        minute = self._peek(account, MINUTE_S, known.per_minute, now)
        day = self._peek(account, DAY_S, known.per_day, now) if known.per_day is not None else None
        tight = day if day is not None and (day.wait_s > minute.wait_s or day.remaining < minute.remaining) else minute
        if tight.wait_s > 0:
            return self._verdict(tight, tight.remaining, now)
        self._used_until[account, MINUTE_S] = minute.used_until + minute.interval_s
        if day is not None:
            self._used_until[account, DAY_S] = day.used_until + day.interval_s
        if len(self._used_until) > ACCOUNTS_MAX:
            self._forget(now)
        return self._verdict(tight, tight.remaining - 1, now)

    def _peek(self, account: str, window_s: float, count: int, now: float) -> "_Window":
        allowed = max(1, int(count * self._share))
        interval = window_s / allowed
        used_until = max(self._used_until.get((account, window_s), now), now)
        free_s = window_s - (used_until - now)
        # A hair's breadth of rounding must not cost a request.
        return _Window(allowed, interval, used_until, int(free_s / interval + 1e-6), max(0.0, interval - free_s - 1e-6))

    def _verdict(self, window: "_Window", remaining: int, now: float) -> Verdict:
        full_in_s = window.used_until - now + (0.0 if window.wait_s > 0 else window.interval_s)
        reset_at = ceil(self._clock.now_ms() / 1000 + full_in_s)
        retry_after = max(1, ceil(window.wait_s)) if window.wait_s > 0 else None
        return Verdict(window.allowed, max(0, remaining), reset_at, retry_after)

    def _forget(self, now: float) -> None:
        self._used_until = {at: until for at, until in self._used_until.items() if until > now}


@dataclass(frozen=True, slots=True)
class _Window:
    allowed: int
    interval_s: float
    used_until: float
    remaining: int
    wait_s: float
