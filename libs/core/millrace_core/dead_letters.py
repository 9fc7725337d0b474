"""What becomes of a record that can never be handled: itself, as it was, with the reason in its headers.

A dead letter keeps key, value and headers byte for byte, so that it can be sent again. Not here: who decides that a
record is one, the fact that tells of it, and that none is sent again twice (the API).
"""

from collections.abc import Mapping
from types import MappingProxyType

from millrace_core import limits
from millrace_core.errors import Reject
from millrace_core.event import event_route
from millrace_core.record import ACCOUNT, ORDERING_KEY, SOURCE, Headers, Output, Received

PLAIN = "dead-letters"
TRANSACTIONAL = "dead-letters-tx"

TOPIC = "dead-topic"
PARTITION = "dead-partition"
OFFSET = "dead-offset"
REASON = "dead-reason"
REDRIVE = "redrive"

SENT_AGAIN_TO: Mapping[str, str] = MappingProxyType(
    {
        "events": "events",
        "run-commands": "run-commands",
        "run-commands-tx": "run-commands",
        "deliveries": "deliveries",
        "deliveries-tx": "deliveries",
        "deliveries-overflow": "deliveries",
    }
)
"""Where a dead letter of a topic is sent again: to the topic, or to its twin that may be written outside a
transaction. What is not named here has none, or was told of in another way already."""

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


def sent_again(topic: str, key: bytes | None, value: bytes | None, headers: Headers, *, nonce: str) -> Output:
    """The record by which a dead letter of a topic gets another chance. It names no source, so whoever keeps a window
    over sources takes it as new. Raises Reject for a topic whose records cannot be sent again."""
    target = SENT_AGAIN_TO.get(topic)
    if target is None:
        raise Reject(
            f"a record of {topic} cannot be sent again: only {', '.join(sorted(SENT_AGAIN_TO))} can. What it belonged "
            "to was told that it failed: start that again"
        )
    kept = [(name, content) for name, content in headers if name not in _OWN and name not in (SOURCE, REDRIVE)]
    route = None
    if target == "events":
        of = dict(kept)
        account, ordering = (of.get(name, b"").decode("utf-8", "replace") for name in (ACCOUNT, ORDERING_KEY))
        route = event_route(account, (key or b"").decode("utf-8", "replace"), ordering)
    elif key is None:
        route = b""
    return Output(target, key, value, (*kept, (REDRIVE, nonce.encode("utf-8", "replace"))), route)
