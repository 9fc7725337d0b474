"""A trial of a subscription on events of the past: who would have heard each, and what that would have started.

The index is the matcher's own (`matching`), so patterns, filters, conditions and what belongs to the platform mean the
same. In a trial everyone hears events however old they are. As the matcher has it, an endpoint gets an event once,
however many subscriptions lead to it: those others stand in the index too. And an event counts once, by the outcome
that the facts gave it: a repeat of a uniqueKey, one that came through too many runs and one that became a dead letter
started nothing and would not have.
Pure. Not here: where events and outcomes come from (`backtests`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.expressions import WhereConditions
from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import Event, SubscriptionControl, encode

COUNTING = (None, "matched", "unmatched")
"""Outcomes of events that count; None = not decided yet."""
_MINUTE_MS = 60_000


class Side:
    """One version of the subscription, among those that lead to the same endpoint as it does."""

    def __init__(self, id: str, controls: Mapping[str, SubscriptionControl]) -> None:
        """`controls` are it and those others by id; none = it leads nowhere and hears nothing."""
        self._id = id
        self._index = SubscriptionIndex(conditions=WhereConditions())
        for one, control in controls.items():
            self._index.apply(control.account, one, encode(msgspec.structs.replace(control, created_at=0)))

    def ways(self, event: Event) -> int:
        """By how many subscriptions the event gets to the target, this one being one; 0 = this one does not hear it.
        Raises Reject when its properties are asked for and cannot be read."""
        heard = self._index.match(
            event.account, event.identifier, bytes(event.properties), received_at=event.received_at, event=event
        )
        return len(heard) if any(one.id == self._id for one in heard) else 0


@dataclass(frozen=True, slots=True)
class Fit:
    """How an event fits the two versions: its ways before and now. Not `is_readable`: it would be a dead letter now."""

    event: Event
    before: int
    now: int
    is_readable: bool = True


@dataclass(slots=True)
class Matched:
    """How many events, and the ids of the first of them."""

    events: int = 0
    samples: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        self.events += 1
        if len(self.samples) < limits.BACKTEST_SAMPLES_MAX:
            self.samples.append(event.id)


@dataclass(slots=True)
class Tally:
    """What one version came to. An event that the endpoint gets `anyway`, by another subscription, starts nothing."""

    matched: int = 0
    anyway: int = 0
    bytes: int = 0
    by_minute: Counter[int] = field(default_factory=Counter)

    @property
    def started(self) -> int:
        return self.matched - self.anyway

    @property
    def peak(self) -> tuple[int, datetime | None]:
        """The most that was started in one minute, and the first minute in which it was."""
        most = max(self.by_minute.values(), default=0)
        minutes = [minute for minute, count in self.by_minute.items() if count == most]
        return most, datetime.fromtimestamp(min(minutes) * _MINUTE_MS / 1000, UTC) if minutes else None

    def add(self, event: Event, ways: int) -> None:
        if ways == 0:
            return
        self.matched += 1
        if ways > 1:
            self.anyway += 1
            return
        self.bytes += len(bytes(event.properties))
        self.by_minute[event.received_at // _MINUTE_MS] += 1


class Trial:
    """Both versions on event after event. Without one `before`, everything is matched now only."""

    def __init__(self, now: Side, *, before: Side | None = None) -> None:
        self._before = before
        self._now = now
        self.before, self.now = Tally(), Tally()
        self.before_only, self.now_only, self.both = Matched(), Matched(), Matched()
        self.not_counted: Counter[str] = Counter()
        self.undecided = 0
        self.unreadable = 0

    def fit(self, event: Event) -> Fit | None:
        """How the event fits; None when neither version hears it. Then its outcome is of no matter."""
        before = 0 if self._before is None else _ways(self._before, event) or 0
        now = _ways(self._now, event)
        if not before and now == 0:
            return None
        return Fit(event, before, now or 0, is_readable=now is not None)

    def count(self, fit: Fit, outcome: str | None) -> None:
        """Add an event that fits, once."""
        if outcome is None and fit.event.hops > limits.HOPS_MAX:
            outcome = "refused"
        if outcome not in COUNTING:
            self.not_counted[outcome or ""] += 1
            return
        self.undecided += int(outcome is None)
        self.unreadable += int(not fit.is_readable)
        self.before.add(fit.event, fit.before)
        self.now.add(fit.event, fit.now)
        if fit.before and fit.now:
            self.both.add(fit.event)
        elif fit.before:
            self.before_only.add(fit.event)
        elif fit.now:
            self.now_only.add(fit.event)


def _ways(side: Side, event: Event) -> int | None:
    """None = the matcher could not handle the event at all."""
    try:
        return side.ways(event)
    except (Reject, RecursionError):
        return None
