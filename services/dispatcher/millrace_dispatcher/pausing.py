"""How an endpoint that fails is spared: a breaker and a pace, as pure state fed with the time.

The breaker opens after a streak of failures; while it is open an attempt is not sent but put off (it counts as an
attempt, like the failure it would have been). After a while one attempt is let through as a probe: it closes the
breaker or opens it for twice as long. The pace halves how many requests are in flight when the endpoint says that it
is overloaded, and recovers by one for each round of successes.
One dispatcher owns an endpoint (the topic is partitioned by it), so both are exact; they live in memory, and a new
owner begins with a closed breaker. Only endpoints that failed lately have a state: `Pausing` forgets the well ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from millrace_core import limits

State = Literal["closed", "open", "half_open"]


@dataclass(slots=True)
class Breaker:
    """One endpoint's. `sent` attempts must end in `succeeded` or `failed`."""

    failures: int = 0
    open_until_ms: int = 0
    open_ms: int = 0
    is_probing: bool = False
    probe_at_ms: int = 0

    def state(self, now_ms: int) -> State:
        if self.open_until_ms == 0:
            return "closed"
        return "open" if now_ms < self.open_until_ms else "half_open"

    def admits(self, now_ms: int) -> bool:
        """Whether an attempt may be sent now. In the half-open state the first one asked for is the probe."""
        state = self.state(now_ms)
        if state == "closed":
            return True
        if state == "open":
            return False
        # A probe that never reported (its task was given away) must not keep the breaker open for ever.
        if self.is_probing and now_ms < self.probe_at_ms + limits.BREAKER_OPEN_MS_MAX:
            return False
        self.is_probing, self.probe_at_ms = True, now_ms
        return True

    def succeeded(self) -> None:
        self.failures = self.open_until_ms = self.open_ms = 0
        self.is_probing = False

    def failed(self, now_ms: int) -> None:
        self.failures += 1
        state = self.state(now_ms)
        if state == "open":
            return  # was in flight when it opened
        if state == "half_open":
            self._open(now_ms, min(self.open_ms * 2, limits.BREAKER_OPEN_MS_MAX))
        elif self.failures >= limits.BREAKER_STREAK:
            self._open(now_ms, limits.BREAKER_OPEN_MS)

    def _open(self, now_ms: int, for_ms: int) -> None:
        self.open_ms, self.open_until_ms, self.is_probing = for_ms, now_ms + for_ms, False


@dataclass(slots=True)
class Pace:
    """How many requests an endpoint may have in flight, out of what it is configured for."""

    share: float = 1.0

    def allowed(self, concurrency: int) -> int:
        return max(1, int(concurrency * self.share))

    def slowed(self, concurrency: int) -> None:
        self.share = max(self.share / 2, 1 / max(concurrency, 1))

    def succeeded(self, concurrency: int) -> None:
        # One more in flight after as many successes as are in flight now: additive increase.
        self.share = min(1.0, self.share + 1 / max(1.0, concurrency * concurrency * self.share))


@dataclass(slots=True)
class Trouble:
    """The state of an endpoint that failed lately."""

    breaker: Breaker
    pace: Pace


Key = tuple[str, str]  # account, endpoint


class Pausing:
    """The endpoints in trouble. A well endpoint costs one look into a dictionary."""

    def __init__(self) -> None:
        self._troubles: dict[Key, Trouble] = {}

    def admits(self, key: Key, now_ms: int) -> bool:
        """Whether an attempt may be sent to the endpoint now; if so, report what came of it."""
        trouble = self._troubles.get(key)
        return trouble is None or trouble.breaker.admits(now_ms)

    def open_until_ms(self, key: Key) -> int:
        """When the endpoint's breaker may let a probe through; 0 = now."""
        trouble = self._troubles.get(key)
        return trouble.breaker.open_until_ms if trouble is not None else 0

    def allowed(self, key: Key, concurrency: int) -> int:
        """How many requests may be in flight to the endpoint now."""
        trouble = self._troubles.get(key)
        return trouble.pace.allowed(concurrency) if trouble is not None else concurrency

    def succeeded(self, key: Key, concurrency: int) -> None:
        trouble = self._troubles.get(key)
        if trouble is None:
            return
        trouble.breaker.succeeded()
        trouble.pace.succeeded(concurrency)
        if trouble.pace.share >= 1.0:
            del self._troubles[key]

    def failed(self, key: Key, concurrency: int, now_ms: int, *, is_overload: bool) -> None:
        trouble = self._troubles.get(key)
        if trouble is None:
            trouble = self._troubles[key] = Trouble(Breaker(), Pace())
        trouble.breaker.failed(now_ms)
        if is_overload:
            trouble.pace.slowed(concurrency)

    def forget(self, key: Key) -> None:
        """The endpoint was changed or deleted: what is known of it no longer holds."""
        self._troubles.pop(key, None)

    def states(self, now_ms: int) -> Iterator[State]:
        """The breaker states of the endpoints in trouble."""
        return (trouble.breaker.state(now_ms) for trouble in self._troubles.values())
