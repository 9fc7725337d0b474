"""The time of those that set and fire timers: the wall clock's, as long as it can be believed.

Between two readings time goes on by the monotonic clock. A reading that differs from it by over 30 s is a jump: of a
broken time server, or of a machine that slept. It is taken only when the broker's time, on a record written for that,
agrees; a jump believed blindly would fire every timer of the next hours at once, or none for as long, and sign webhooks
with an hour that their receivers refuse. Small
corrections are followed, but never further than 30 s from the last time the broker confirmed. Not here: asking it.
"""

from millrace_core import limits
from millrace_core.clock import Clock


class SteadyClock:
    """A Clock over another. Doubted from the start, and after a jump, until the broker has spoken."""

    def __init__(self, wall: Clock, *, jump_ms_max: int = limits.CLOCK_JUMP_MS_MAX) -> None:
        self._wall = wall
        self._jump_ms_max = jump_ms_max
        self._now = self._confirmed = (wall.now_ms(), wall.monotonic())
        self._is_doubted = True

    @property
    def is_doubted(self) -> bool:
        """The wall clock says something that only the broker can confirm: tell `broker_said` its time."""
        return self._is_doubted

    def now_ms(self) -> int:
        return self._since(self._now)

    def monotonic(self) -> float:
        return self._wall.monotonic()

    def read(self) -> None:
        """Look at the wall clock. Call it about every second."""
        wall_ms = self._wall.now_ms()
        if self._agree(wall_ms, self._since(self._confirmed)):
            self._now = (wall_ms, self._wall.monotonic())
        else:
            self._is_doubted = True

    def broker_said(self, broker_ms: int) -> None:
        """Settle a doubt: the wall clock if the broker agrees with it, else our own count, else the broker's time."""
        said = (self._wall.now_ms(), self.now_ms(), broker_ms)
        believed_ms = next(ms for ms in said if self._agree(ms, broker_ms))
        self._now = self._confirmed = (believed_ms, self._wall.monotonic())
        self._is_doubted = False

    def _since(self, moment: tuple[int, float]) -> int:
        at_ms, monotonic = moment
        return at_ms + round((self._wall.monotonic() - monotonic) * 1000)

    def _agree(self, one_ms: int, other_ms: int) -> bool:
        return abs(one_ms - other_ms) <= self._jump_ms_max
