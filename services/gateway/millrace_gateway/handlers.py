"""From a post to the record of its event: the gateway's rule, pure.

`Idempotency-Key` stands in for a missing `uniqueKey`, in the scope of the API key that sent it, so two keys of an
account cannot swallow each other's events. In a batch each item has its own, by its place.
"""

import hashlib

import msgspec

from millrace_core import event, limits
from millrace_core.event import Posted
from millrace_core.messages import Event
from millrace_core.record import Output


def stand_in_unique_key(idempotency_key: str, *, key_id: str, index: int | None = None) -> str:
    """The uniqueKey that an `Idempotency-Key` header stands for."""
    place = "" if index is None else f"#{index}"
    whole = f"idem:{key_id}:{idempotency_key}{place}"
    if len(whole) <= limits.UNIQUE_KEY_CHARS_MAX:
        return whole
    return f"idem:{key_id}:sha256:" + hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()


def accept(
    posted: Posted,
    *,
    account: str,
    now_ms: int,
    unique_key: str | None = None,
    traceparent: str | None = None,
    surface: str = "ingest",
) -> tuple[Event, Output]:
    """The event and its record. `unique_key` stands in when the post has none."""
    if unique_key is not None and posted.unique_key is None:
        posted = msgspec.structs.replace(posted, unique_key=unique_key)
    made = event.make_event(posted, account=account, now_ms=now_ms)
    return made, event.to_output(made, surface=surface, traceparent=traceparent)


def spread(output: Output, event_id: str) -> Output:
    """The same record, anywhere: for identifiers whose order the account gave up."""
    return msgspec.structs.replace(output, route=event_id.encode())
