"""What a reader of derived commands has seen of each source partition: the second rule of the idempotent processor.

The matcher writes at least once, so a command may come again, and no window of time is long enough for that: an
uncommitted batch lives as long as an outage. The window is therefore one of offsets: for each source partition the
highest offset seen and the ids of the last `SOURCE_WINDOW_OFFSETS` offsets before it. The matcher commits in order and
never has more than that in flight, so what lies below the window was committed long ago.

An id is claimed by the offset of the record that first brought it (its *own* offset, in the log that is being read):
the same record read again after a crash is handled again, a later record with the same id is a repeat.
One window serves one input partition. It holds nothing of its own: it is rebuilt by reading that log again.
"""

from typing import Literal

from millrace_core import limits
from millrace_core.record import Source

Verdict = Literal["new", "repeat", "stale"]


class _Partition:
    """One source partition: ids by source offset, newest `span` offsets only."""

    __slots__ = ("claims", "floor", "highest", "ids", "span")

    def __init__(self, span: int) -> None:
        self.span = span
        self.highest = -1
        self.floor = 0  # no offset below it is remembered
        self.claims: dict[str, int] = {}
        self.ids: dict[int, list[str]] = {}

    def add(self, id: str, offset: int, own_offset: int) -> None:
        if offset > self.highest:
            self.highest = offset
            self.forget_below(offset - self.span + 1)
        if offset < self.floor:
            return
        claimed = self.claims.get(id)
        if claimed is None:
            self.claims[id] = own_offset
            self.ids.setdefault(offset, []).append(id)
        elif own_offset < claimed:
            self.claims[id] = own_offset

    def forget_below(self, floor: int) -> None:
        if floor <= self.floor:
            return
        # After a gap it is cheaper to look at what is there than to count through what is not.
        gap = floor - self.floor
        passed = range(self.floor, floor) if gap <= len(self.ids) else [at for at in self.ids if at < floor]
        for offset in passed:
            for id in self.ids.pop(offset, ()):
                del self.claims[id]
        self.floor = floor


class SourceWindow:
    """Tells a command that is new from one that was had already. Pure, bounded, safe to rebuild at any time."""

    def __init__(self, *, offsets: int = limits.SOURCE_WINDOW_OFFSETS) -> None:
        self._offsets = offsets
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def check(self, source: Source, id: str, own_offset: int) -> Verdict:
        """`new`: handle it, then `add` it. `repeat`: drop it. `stale`: too old to be told apart, drop it and say so
        with a terminal fact, which counts only if nothing else is known of the id."""
        seen = self._partitions.get((source.topic, source.partition))
        if seen is None:
            return "new"
        claimed = seen.claims.get(id)
        if claimed is not None:
            return "new" if claimed == own_offset else "repeat"
        return "stale" if source.offset < seen.floor else "new"

    def add(self, source: Source, id: str, own_offset: int) -> None:
        """Remember that the record at `own_offset` brought this id. Repeating it changes nothing."""
        key = (source.topic, source.partition)
        seen = self._partitions.get(key)
        if seen is None:
            seen = self._partitions[key] = _Partition(self._offsets)
        seen.add(id, source.offset, own_offset)

    def cut(self) -> None:
        """What was added is not all there was: whoever rebuilt the window had to stop reading back. Offsets before the
        oldest remembered can no longer be told apart, so they count as `stale` and never as new."""
        for seen in self._partitions.values():
            seen.forget_below(min(seen.ids, default=seen.floor))

    def highest(self) -> dict[tuple[str, int], int]:
        """The highest offset seen of each source partition (topic, number)."""
        return {place: seen.highest for place, seen in self._partitions.items()}

    def known_until(self, topic: str, partition: int, highest: int) -> None:
        """Whoever rebuilt the window found nothing of this source partition, but knows how far it had been: what lies
        there can no longer be told apart, and is `stale`. One of which something was found stays as it is."""
        if (topic, partition) not in self._partitions:
            unseen = self._partitions[topic, partition] = _Partition(self._offsets)
            unseen.highest, unseen.floor = highest, highest + 1

    def __len__(self) -> int:
        """How many ids are remembered."""
        return sum(len(seen.claims) for seen in self._partitions.values())
