"""Which record of its input log owns an attempt: each (delivery, attempt) is made for one record, and for no other.

The matcher writes at least once, so the same attempt may be asked for again by a later record; `SourceWindow` tells.
An attempt is claimed by the offset of the first record that asked for it: that record handled again after a crash is
handled again, with the same delivery id. Records are looked at once, in the log's order, when they are read: one that
then waits for its turn must not grow stale meanwhile. A record without a source is always new: a fired timer's, which
is written exactly once, or one asked for by hand.
On `deliveries-overflow` nothing is stale: what was moved there stood in the order in which it was moved, so a record
that waited long before comes behind others whose sources are far ahead of its own.
One window for each input partition; nothing is kept elsewhere, a new owner rebuilds it by reading the log back.
"""

import msgspec

from millrace_core import limits, record
from millrace_core.record import Received
from millrace_core.seen import SourceWindow, Verdict
from millrace_dispatcher.outputs import OVERFLOW


class _Asked(msgspec.Struct, gc=False):
    id: str
    attempt: int = 1


_decode = msgspec.json.Decoder(_Asked).decode


class _Partition:
    """One input partition: its window, how far it has been looked at, and what was found of those not yet worked on."""

    __slots__ = ("next", "recalled", "verdicts", "window")

    def __init__(self) -> None:
        self.window = SourceWindow()
        self.next = 0
        self.recalled = 0
        self.verdicts: dict[int, Verdict] = {}  # those that are not new: few


class Claims:
    """The windows of the partitions this process owns. A `Memory` of its lanes."""

    def __init__(self) -> None:
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def see(self, read: Received) -> None:
        """Look at a record, in the log's order. Looking again at one that was seen changes nothing."""
        key = (read.topic, read.partition)
        partition = self._partitions.get(key)
        if partition is None:
            partition = self._partitions[key] = _Partition()
        if read.offset < partition.next:
            return
        partition.next = read.offset + 1
        source = record.parse_source(record.header(read, record.SOURCE))
        id = None if source is None else _attempt_id(read)
        if source is None or id is None:
            return
        verdict = partition.window.check(source, id, read.offset)
        if verdict == "new":
            partition.window.add(source, id, read.offset)
        elif verdict == "repeat" or record.topic_name(read.topic) != OVERFLOW:
            partition.verdicts[read.offset] = verdict

    def take(self, asked_by: Received) -> Verdict:
        """What was found of a record, when its work begins."""
        partition = self._partitions.get((asked_by.topic, asked_by.partition))
        return "new" if partition is None else partition.verdicts.pop(asked_by.offset, "new")

    def begin(self, topic: str, number: int) -> None:
        """A partition is taken over: its window begins empty, and is rebuilt by `recall`."""
        self._partitions[topic, number] = _Partition()

    def recall(self, read: Received) -> None:
        """A record that the log holds before the position, oldest first."""
        partition = self._partitions[read.topic, read.partition]
        partition.next = read.offset + 1
        source = record.parse_source(record.header(read, record.SOURCE))
        id = None if source is None else _attempt_id(read)
        if source is not None and id is not None:
            partition.window.add(source, id, read.offset)
        partition.recalled += 1
        if partition.recalled == limits.READ_BACK_RECORDS_MAX:
            partition.window.cut()

    def forget(self, topic: str, number: int) -> None:
        """The partition went to another owner."""
        self._partitions.pop((topic, number), None)


def _attempt_id(read: Received) -> str | None:
    """What a claim is for: a delivery's next attempt is another piece of work under the same delivery id. None: it
    will be a dead letter, and claims nothing."""
    try:
        asked = _decode(read.value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return f"{asked.id}/{asked.attempt}"
