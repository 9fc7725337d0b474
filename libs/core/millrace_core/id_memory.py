"""Remembers ids for at least a day in a task's state: for what has no source offset to be told apart by.

Entries stand under the UTC day of the record that brought them, so nothing about them is kept in memory and a whole
day is forgotten together, between 24 and 48 hours later. Time is the records' own, so a repeat of the log gives the
same answers. Not here: commands that come from an event (`seen`), and uniqueKey.
"""

from itertools import islice

from millrace_core import limits
from millrace_core.handling import State
from millrace_core.ids import DAY_MS

assert limits.COMMAND_ID_MEMORY_MS <= DAY_MS, "today and yesterday hold the whole memory"


class IdMemory:
    """One kind of ids in one task's state, under `prefix`."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._oldest_day: int | None = None

    def load(self, state: State) -> None:
        """Find the oldest day there is. Call it once, before all else."""
        first = next(iter(state.scan(self._prefix)), None)
        self._oldest_day = None if first is None else int(first[0][len(self._prefix) :].partition(b"/")[0])

    def knows(self, state: State, account: str, id: str, now_ms: int) -> bool:
        """Whether the id was remembered today or yesterday."""
        today = now_ms // DAY_MS
        return any(state.get(self._key(day, account, id)) is not None for day in (today, today - 1))

    def remember(self, state: State, account: str, id: str, now_ms: int) -> None:
        today = now_ms // DAY_MS
        state.put(self._key(today, account, id), b"")
        if self._oldest_day is None or today < self._oldest_day:
            self._oldest_day = today

    def next_due_ms(self) -> int | None:
        """When the oldest day may be forgotten; None = nothing is remembered."""
        return None if self._oldest_day is None else (self._oldest_day + 2) * DAY_MS

    def forget_due(self, state: State, now_ms: int, limit: int) -> int:
        """Forget at most `limit` ids of days before yesterday. Returns how many."""
        day = self._oldest_day
        if day is None or now_ms < (day + 2) * DAY_MS:
            return 0
        old = list(islice(state.scan(b"%b%06d/" % (self._prefix, day)), limit))
        for key, _ in old:
            state.delete(key)
        if len(old) < limit:
            self.load(state)
        return len(old)

    def _key(self, day: int, account: str, id: str) -> bytes:
        return b"%b%06d/%b/%b" % (self._prefix, day, account.encode(), id.encode())
