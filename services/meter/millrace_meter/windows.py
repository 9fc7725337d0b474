"""Which windows are open, and what the closed ones held: the meter's rules, without Faust.

A window closes a grace after its end, by the machine's clock. What comes later opens it again, and it is told again in
full. Nothing here survives the process: the counts do, in Faust's table.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from millrace_core import limits
from millrace_core.messages import Meter

WINDOW_MS: Final = limits.METER_WINDOW_S * 1000
GRACE_MS: Final = int(limits.METER_GRACE_S * 1000)
OTHERS: Final = "*"

Key = tuple[str, str]
"""Account and identifier."""
Counts = tuple[int, int, int]
"""Events, runs and deliveries."""


class OpenWindows:
    """The keys of each window that is not yet told of."""

    def __init__(self) -> None:
        self._keys: dict[int, dict[Key, None]] = {}

    def touch(self, at_ms: int, key: Key) -> None:
        """Something was counted under this key at this time."""
        self._keys.setdefault(start_of(at_ms), {})[key] = None

    def close(self, now_ms: int, counts: Callable[[int, Key], Counts | None]) -> list[Meter]:
        """What every window that is over held, oldest first. `counts` looks a window's key up; None = lost."""
        over = sorted(start for start in self._keys if start + WINDOW_MS + GRACE_MS <= now_ms)
        closed = []
        for start in over:
            for account, identifier in self._keys.pop(start):
                found = counts(start, (account, identifier))
                if found is not None:
                    closed.append(_meter(account, identifier, start, found))
        return closed


class Shown(msgspec.Struct, frozen=True, gc=False):
    """One series to show: its labels and what the last window held."""

    account: str
    identifier: str
    counts: Counts


class LastWindow:
    """What a dashboard shows: the last closed window of each account and identifier, up to a bound."""

    def __init__(self, *, series_max: int = limits.METER_SERIES_MAX) -> None:
        self._series_max = series_max
        self._shown: dict[Key, tuple[int, Counts]] = {}

    def take(self, meters: Iterable[Meter]) -> None:
        for meter in meters:
            key = (meter.account, meter.identifier)
            known = self._shown.get(key)
            if known is None or known[0] <= meter.start:
                self._shown[key] = (meter.start, (meter.events, meter.runs, meter.deliveries))

    def series(self, now_ms: int) -> list[Shown]:
        """Every series of windows that ended within two windows and the grace; older ones are forgotten: that key
        had nothing since. Beyond the bound an account's rest is summed, the busiest stay apart."""
        oldest = now_ms - 3 * WINDOW_MS - GRACE_MS
        self._shown = {key: known for key, known in self._shown.items() if known[0] >= oldest}
        busiest = sorted(self._shown.items(), key=lambda item: (-item[1][1][0], item[0]))
        series = [Shown(*key, counts) for key, (_, counts) in busiest[: self._series_max]]
        rest: dict[str, Counts] = {}
        for (account, _), (_, counts) in busiest[self._series_max :]:
            rest[account] = added(rest.get(account), counts)
        return series + [Shown(account, OTHERS, counts) for account, counts in rest.items()]


def start_of(at_ms: int) -> int:
    """When the window of this time began."""
    return at_ms - at_ms % WINDOW_MS


def added(one: Counts | None, other: Counts) -> Counts:
    return other if one is None else (one[0] + other[0], one[1] + other[1], one[2] + other[2])


def _meter(account: str, identifier: str, start: int, counts: Counts) -> Meter:
    events, runs, deliveries = counts
    return Meter(
        account=account,
        identifier=identifier,
        start=start,
        end=start + WINDOW_MS,
        events=events,
        runs=runs,
        deliveries=deliveries,
    )
