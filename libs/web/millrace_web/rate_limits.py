"""How often an account may ask, by its plan: GCRA, two numbers an account and window, no timer, no queue.

Each process holds its own share of the rate (the gateway asks nobody on the way of an event), so `share` is one over
the number of processes. The burst is the whole window's count; what was used comes back evenly. The memory is bounded:
accounts whose limit is full again are forgotten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType

import msgspec

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


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What came of one request: its headers, and when to come back if it is refused."""

    limit: int
    remaining: int
    reset_at: int
    """Unix seconds at which the limit is full again."""
    retry_after_s: int | None = None
    """None = allowed."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset_at),
        ]


class _Window(msgspec.Struct, frozen=True, gc=False):
    """So many requests in so long, for one process's share."""

    seconds: float
    allowed: int
    interval_s: float

    def free(self, used_s: float) -> int:
        """How many requests still fit. A hair's breadth of rounding must not cost one."""
        return int((self.seconds - used_s) / self.interval_s + 1e-6)


class RateLimits:
    """The accounts' limits in this process."""

    def __init__(self, clock: Clock, *, share: float = 1.0) -> None:
        self._clock = clock
        self._windows = {
            plan.name: (
                _window(MINUTE_S, plan.per_minute, share),
                None if plan.per_day is None else _window(DAY_S, plan.per_day, share),
            )
            for plan in PLANS.values()
        }
        # account → the theoretical arrival times of both windows, monotonic seconds: above now = that much is used up.
        self._used_until: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._used_until)

    def take(self, account: str, plan: str) -> Verdict:
        """Count one request. A refused one takes nothing. An unknown plan has the smallest limits."""
        now = self._clock.monotonic()
        minute, day = self._windows.get(plan) or self._windows[SMALLEST.name]
        until_minute, until_day = self._used_until.get(account, (now, now))
        used_minute, used_day = max(until_minute - now, 0.0), max(until_day - now, 0.0)
        window, used, free = minute, used_minute, minute.free(used_minute)
        if day is not None and (free_day := day.free(used_day)) < free:
            window, used, free = day, used_day, free_day
        if free < 1:
            wait_s = used + window.interval_s - window.seconds
            return Verdict(window.allowed, 0, self._reset_at(used), max(1, ceil(wait_s - 1e-6)))
        spent_day = 0.0 if day is None else used_day + day.interval_s
        self._used_until[account] = (now + used_minute + minute.interval_s, now + spent_day)
        if len(self._used_until) > ACCOUNTS_MAX:
            self._forget(now)
        return Verdict(window.allowed, free - 1, self._reset_at(used + window.interval_s))

    def _reset_at(self, full_in_s: float) -> int:
        return ceil(self._clock.now_ms() / 1000 + full_in_s)

    def _forget(self, now: float) -> None:
        self._used_until = {account: until for account, until in self._used_until.items() if max(until) > now}


def _window(seconds: float, count: int, share: float) -> _Window:
    allowed = max(1, int(count * share))
    return _Window(seconds, allowed, seconds / allowed)
