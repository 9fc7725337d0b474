"""How often an account may ask, by its plan: GCRA, two numbers an account and window, no timer, no queue.

Each process holds its own share of the rate (the gateway asks nobody on the way of an event), so `share` is one over
the number of processes. The burst is the whole window's count; what was used comes back evenly. The memory is bounded:
accounts whose limit is full again are forgotten.
"""

from math import ceil

import msgspec

from millrace_core.clock import Clock
from millrace_web.rate_plans import DAY_S, FIRE, MINUTE_S, PLANS, SMALLEST, UNLIMITED, endpoint_window

ACCOUNTS_MAX = 100_000


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What came of one request: its headers, and when to come back if it is refused."""

    limit: int
    remaining: int
    reset_at: int
    """Unix seconds at which the limit is full again."""
    retry_after_s: int | None = None
    """None = allowed."""

    def headers(self, *, per_s: int = 1) -> list[tuple[bytes, bytes]]:
        """As an answer carries them; `per_s` is the unit of the reset: 1 for Unix seconds, 1,000 for milliseconds."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % (self.reset_at * per_s)),
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
        fire = endpoint_window("POST", FIRE)
        assert fire is not None
        self._windows[FIRE] = (_window(MINUTE_S, fire.allowed, share), None)
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

    def take_fire(self, account: str, plan: str) -> Verdict:
        """Count one request to `/v1/events/fire`, which has a rate of its own instead of the plan's."""
        if plan == UNLIMITED:
            return self.take(account, plan)
        return self.take(f"{account} {FIRE}", FIRE)

    def look(self, account: str, plan: str) -> Verdict:
        """What a request would have found, counting none."""
        now = self._clock.monotonic()
        minute, _ = self._windows.get(plan) or self._windows[SMALLEST.name]
        until, _ = self._used_until.get(account, (now, now))
        used = max(until - now, 0.0)
        return Verdict(minute.allowed, max(minute.free(used), 0), self._reset_at(used))

    def _reset_at(self, full_in_s: float) -> int:
        return ceil(self._clock.now_ms() / 1000 + full_in_s)

    def _forget(self, now: float) -> None:
        self._used_until = {account: until for account, until in self._used_until.items() if max(until) > now}


def _window(seconds: float, count: int, share: float) -> _Window:
    allowed = max(1, int(count * share))
    return _Window(seconds, allowed, seconds / allowed)
