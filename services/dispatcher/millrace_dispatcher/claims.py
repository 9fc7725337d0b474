"""Which record of its input log owns an attempt: each (delivery, attempt) is made for one record, and for no other.

The writers before the dispatcher write at least once, so the same attempt may be asked for again by a later record;
`SourceWindow` tells. An attempt is claimed by the offset of the first record that asked for it: that record handled
again after a crash is handled again, with the same delivery id. One window for each input partition; nothing is kept
elsewhere, a new owner rebuilds it by reading the log back before its position.
"""

from collections.abc import Iterable

from millrace_core import record
from millrace_core.errors import Reject
from millrace_core.messages import Delivery, decode
from millrace_core.record import Received
from millrace_core.seen import SourceWindow, Verdict


class Claims:
    """The windows of the partitions this process owns."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, int], SourceWindow] = {}

    def claim(self, asked_by: Received, delivery: Delivery) -> Verdict:
        """Claim the delivery's attempt for this record. `new`: it is this record's, now and when it is read again.
        A record without a source (asked for by hand) is always new."""
        source = record.parse_source(record.header(asked_by, record.SOURCE))
        if source is None:
            return "new"
        window = self._windows.setdefault((asked_by.topic, asked_by.partition), SourceWindow())
        id = attempt_id(delivery)
        verdict = window.check(source, id, asked_by.offset)
        if verdict == "new":
            window.add(source, id, asked_by.offset)
        return verdict

    def rebuild(self, topic: str, partition: int, records: Iterable[Received]) -> None:
        """Begin the partition's window anew with what the log holds before its position, oldest first."""
        window = self._windows[topic, partition] = SourceWindow()
        for read in records:
            source = record.parse_source(record.header(read, record.SOURCE))
            if source is None:
                continue
            try:
                window.add(source, attempt_id(decode(read.value, Delivery)), read.offset)
            except Reject:
                continue  # it became a dead letter, and claims nothing

    def forget(self, topic: str, partition: int) -> None:
        """The partition went to another owner."""
        self._windows.pop((topic, partition), None)


def attempt_id(delivery: Delivery) -> str:
    """What a claim is for: a delivery's next attempt is another piece of work under the same delivery id."""
    return f"{delivery.id}/{delivery.attempt}"
