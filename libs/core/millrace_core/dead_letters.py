"""What becomes of a record that can never be handled: itself, as it was, with the reason in its headers.

A dead letter keeps key, value and headers byte for byte, so that it can be sent again. Not here: who decides that a
record is one, and the fact that tells of it.
"""

from millrace_core import limits
from millrace_core.record import Output, Received

PLAIN = "dead-letters"
TRANSACTIONAL = "dead-letters-tx"

TOPIC = "dead-topic"
PARTITION = "dead-partition"
OFFSET = "dead-offset"
REASON = "dead-reason"
_OWN = frozenset({TOPIC, PARTITION, OFFSET, REASON})


def dead_letter(record: Received, reason: str, *, topic: str = PLAIN) -> Output:
    """The record to be written to `topic` (`dead-letters`, or `dead-letters-tx` inside a transaction).

    A letter that died before keeps only its latest death. The reason is cut to its bound and must hold no secret."""
    headers = [(name, value) for name, value in record.headers if name not in _OWN]
    cut = reason[: limits.DEAD_LETTER_REASON_CHARS_MAX]
    headers += [
        (TOPIC, record.topic.encode()),
        (PARTITION, b"%d" % record.partition),
        (OFFSET, b"%d" % record.offset),
        (REASON, cut.encode("utf-8", "backslashreplace")),
    ]
    return Output(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=tuple(headers),
        route=record.key if record.key is not None else b"%b:%d" % (record.topic.encode(), record.partition),
    )
