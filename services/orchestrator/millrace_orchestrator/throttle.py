"""How many of a key began within a throttle's period: exact bounds from a few numbers.

What began is remembered in at most about FLOW_THROTTLE_PARTS parts of the period, each of which counts until its latest
is older than the period: in no window of that length do more than `limit` begin, and none waits longer than it must by
more than one part.
"""

import msgspec

from millrace_core import limits
from millrace_core.messages import Throttle


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """So many began between two instants."""

    first: int
    last: int
    count: int


Spent = tuple[Part, ...]
"""Oldest first."""


def spend(spent: Spent, throttle: Throttle, now_ms: int) -> Spent:
    """One more began now."""
    kept = [part for part in spent if part.last + _period_ms(throttle) > now_ms]
    width = _period_ms(throttle) // limits.FLOW_THROTTLE_PARTS
    if kept and now_ms - kept[-1].first < width:
        newest = kept.pop()
        kept.append(Part(newest.first, max(newest.last, now_ms), newest.count + 1))
    else:
        kept.append(Part(now_ms, now_ms, 1))
    return tuple(kept)


def free_at(spent: Spent, throttle: Throttle, now_ms: int) -> int:
    """When the next may begin: `now_ms` or later."""
    period_ms = _period_ms(throttle)
    kept = [part for part in spent if part.last + period_ms > now_ms]
    surplus = sum(part.count for part in kept) - throttle.limit + 1
    for part in kept:
        if surplus <= 0:
            break
        surplus -= part.count
        now_ms = part.last + period_ms
    return now_ms


def over_at(spent: Spent, throttle: Throttle | None) -> int:
    """When nothing of it counts any more."""
    return max((part.last for part in spent), default=0) + _period_ms(throttle) if throttle and spent else 0


def _period_ms(throttle: Throttle) -> int:
    return round(throttle.period_s * 1000)
