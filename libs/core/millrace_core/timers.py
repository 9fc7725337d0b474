"""Timers: which of many is due next. A heap over their instants, and what of each is kept on the log.

The queue is an index and holds no truth: it is rebuilt from the scheduler's state, entry by entry, in any order. Not
here: what a timer does when it is due (the scheduler's handler).
"""

import heapq
from collections.abc import Iterator

import msgspec

COMPACT_FROM = 1_024


class Timer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A set timer. `headers` are what its record will carry, `record` its bytes as they were given."""

    id: str
    account: str
    due_ms: int
    topic: str
    key: str
    headers: tuple[tuple[str, bytes], ...]
    record: bytes
    may_repeat: bool
    """Whether its setting may come again after it is gone: it was set by an at-least-once writer."""


class TimerQueue:
    """Keys by instant. Setting one that is set changes nothing; forgetting is cheap and its slot is reused later."""

    def __init__(self) -> None:
        self._due: dict[bytes, int] = {}
        self._heap: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: bytes, due_ms: int) -> None:
        """Set it, unless it is set."""
        if key not in self._due:
            self._due[key] = due_ms
            heapq.heappush(self._heap, (due_ms, key))

    def discard(self, key: bytes) -> None:
        """Forget it, if it is set."""
        if self._due.pop(key, None) is not None and len(self._heap) > 2 * len(self._due) + COMPACT_FROM:
            self._heap = [(due_ms, key) for key, due_ms in self._due.items()]
            heapq.heapify(self._heap)

    def next_due_ms(self) -> int | None:
        """The earliest instant; None = nothing is set."""
        self._drop_forgotten()
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ms: int, limit: int) -> Iterator[bytes]:
        """Forget and give the keys whose instant has come, earliest first, at most `limit`."""
        for _ in range(limit):
            self._drop_forgotten()
            if not self._heap or self._heap[0][0] > now_ms:
                return
            _, key = heapq.heappop(self._heap)
            del self._due[key]
            yield key

    def _drop_forgotten(self) -> None:
        heap, due = self._heap, self._due
        # An entry speaks for its key only while it names the key's instant: a key may be set again after it was
        # forgotten, for another instant.
        while heap and due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
