"""How often an endpoint is called: at most as many deliveries a second as its owner allows. Pure state, told the time.

Each call moves the moment of the next one on by `1 / rate`; of a moment missed at most RATE_BURST_S are made up, since
loops and timers are not exact. What must wait for that a short while waits in its lane, which is held back and keeps
nobody else waiting. What would wait longer, or in too long a queue, leaves: a timer on the log brings it back when its
turn has come, and what is new meanwhile goes behind what has left. Waiting is no attempt.
All deliveries to an endpoint, moved ones and those that come back too, lie in partitions of one number, which have one
owner, so this one limiter sees them all. A new owner knows of no earlier call and of nobody who has left: at a change
of owners one call may come early, and who comes back may leave once more. The first record that is begun alone after
an unclean end asks nobody.
"""

from dataclasses import dataclass

from millrace_core import limits

Key = tuple[str, str]  # account, endpoint
Place = tuple[str, int, int]  # topic, partition, offset
NEVER = float("-inf")


@dataclass(slots=True)
class _Pace:
    """`next_s`: when the endpoint may be called again; `tail_s`: the turn of the one that left last."""

    next_s: float = NEVER
    tail_s: float = NEVER


class Rates:
    """The endpoints that have a rate. One without is never asked for here."""

    def __init__(self) -> None:
        self._paces: dict[Key, _Pace] = {}
        self._waiting: dict[Key, set[Place]] = {}

    @property
    def waiting(self) -> int:
        """Deliveries that wait in the lanes of these endpoints."""
        return sum(map(len, self._waiting.values()))

    def leaves_for_s(self, key: Key, place: Place, per_s: float, now_s: float, *, is_back: bool) -> float | None:
        """What becomes of a delivery that was read: None = it waits in its lane from now on, else how long it is to be
        away. One that comes back need not stand behind those that left after it."""
        pace = self._paces.setdefault(key, _Pace())
        waiting = self._waiting.get(key, ())
        wait_s = max(0.0, pace.next_s - now_s) + len(waiting) / per_s
        is_turn = is_back or pace.tail_s <= now_s
        if is_turn and wait_s <= limits.RATE_WAIT_S and len(waiting) < limits.RATE_WAITING_MAX:
            self._waiting.setdefault(key, set()).add(place)
            return None
        turn_s = max(pace.tail_s + 1 / per_s, now_s + wait_s)
        # Not for longer, so that a rate that was changed meanwhile is soon heard of.
        pace.tail_s = min(turn_s, now_s + limits.RATE_AWAY_S_MAX)
        return pace.tail_s - now_s

    def hold_s(self, key: Key, place: Place, per_s: float, now_s: float) -> float:
        """Until when the endpoint's lane is held back; not ahead = the delivery begins, and counts."""
        pace = self._paces.setdefault(key, _Pace())
        if pace.next_s > now_s:
            return min(pace.next_s, now_s + limits.RATE_WAIT_S)
        pace.next_s = max(pace.next_s, now_s - limits.RATE_BURST_S) + 1 / per_s
        self.over(key, place)
        return now_s

    def over(self, key: Key, place: Place) -> None:
        """It waits here no longer: it was begun, or went another way. Safe to repeat."""
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.discard(place)
            if not waiting:
                del self._waiting[key]

    def forget(self, key: Key) -> None:
        """The endpoint was changed or deleted: it may be called at once, and then as it says now."""
        self._paces.pop(key, None)

    def lost(self, topic: str, partition: int) -> None:
        """A partition went to another owner, with all that waited of it."""
        for key, waiting in list(self._waiting.items()):
            kept = {place for place in waiting if place[:2] != (topic, partition)}
            if kept:
                self._waiting[key] = kept
            else:
                del self._waiting[key]
