"""Time as a seam: everything that needs the hour asks a Clock, so that tests can move it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time. Neither blocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start. Never goes back."""
        ...


def utc_now(clock: Clock) -> datetime:
    """The clock's wall time, as Postgres takes it."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC)


class SystemClock:
    """The machine's clock; `offset_ms` shifts its wall time (fault tests set it on one service)."""

    def __init__(self, offset_ms: int = 0) -> None:
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._offset_ms

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that only moves when told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move wall and monotonic time together."""
        self._now_ms += int(seconds * 1000)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move wall time alone, as a wrong time server would."""
        self._now_ms += int(seconds * 1000)
