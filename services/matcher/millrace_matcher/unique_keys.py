"""Which `uniqueKey` was had within 24 hours: the third rule of the idempotent processor, at most 250 bytes a key.

Time is the records' own, never a clock. An entry belongs to (account, identifier, ordering key, uniqueKey, UTC day) and
says which offset claimed it; it is written once, and again only by the record that claimed it, so what a woken zombie
writes late is what stands there already. Today's and yesterday's entries are looked at. The same record read again is
handled again; a later one within the window is a duplicate. Not here: the changelog itself, which is kept 49 h.
"""

import struct
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from millrace_core import ids, limits

_KEY = struct.Struct(">I16s")  # UTC day, digest
_CLAIM = struct.Struct(">QQ16s")  # offset, time of the record, UUID of the event
DAYS_KEPT = 3  # today, yesterday, and one more for a broker's clock that goes back


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Who had the key first: where, when, and as which event."""

    offset: int
    at_ms: int
    event: str


Days = dict[int, dict[bytes, bytes]]


class UniqueKeys:
    """The entries of every partition this process holds. Pure."""

    def __init__(self) -> None:
        self._partitions: dict[int, Days] = {}

    def restore(self, partition: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take the partition's changelog, oldest first, in place of what was known. Damaged entries are left out."""
        days: Days = {}
        for key, value in entries:
            if len(key) != _KEY.size or len(value) != _CLAIM.size:
                continue
            day, digest = _KEY.unpack(key)
            known = days.setdefault(day, {})
            # The lowest offset claimed it: written twice it says the same, so this only guards against damage.
            if digest not in known or value < known[digest]:
                known[digest] = value
        self._partitions[partition] = days

    def forget(self, partition: int) -> None:
        self._partitions.pop(partition, None)

    def earlier(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> Claim | None:
        """The claim that makes this record a duplicate, or None."""
        days = self._partitions.get(partition)
        if days is None:
            return None
        today = at_ms // ids.DAY_MS
        for day in (today, today - 1):
            value = days[day].get(digest) if day in days else None
            if value is None:
                continue
            claimed, claimed_ms, first = _CLAIM.unpack(value)
            if claimed >= offset:
                continue
            # Received on one UTC day, they are one event by its id, even if the log took them 24 h apart.
            if at_ms - claimed_ms < limits.UNIQUE_KEY_WINDOW_MS or first.hex() == event[-32:]:
                return Claim(claimed, claimed_ms, f"{ids.EVENT}_{first.hex()}")
        return None

    def claim(self, partition: int, digest: bytes, *, offset: int, at_ms: int, event: str) -> tuple[bytes, bytes]:
        """Claim the key for this record; gives the changelog entry. Claiming again gives the same entry again."""
        today = at_ms // ids.DAY_MS
        days = self._partitions.setdefault(partition, {})
        known = days.get(today)
        if known is None:
            known = days[today] = {}
            for old in [day for day in days if day <= today - DAYS_KEPT]:
                del days[old]
        value = _CLAIM.pack(offset, at_ms, bytes.fromhex(event[-32:]))
        known[digest] = value
        return _KEY.pack(today, digest), value

    def size(self, partition: int) -> int:
        """How many entries a partition has."""
        return sum(len(known) for known in self._partitions.get(partition, {}).values())

    def __len__(self) -> int:
        return sum(self.size(partition) for partition in self._partitions)


def digest_of(account: str, identifier: str, ordering_key: str, unique_key: str) -> bytes:
    """What an entry is kept under, beside its day. 128 bits: two keys never meet."""
    parts = f"{account}\x1f{identifier}\x1f{len(ordering_key)}:{ordering_key}{unique_key}"
    return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).digest()
