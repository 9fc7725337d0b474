"""What the dispatcher writes: the fact of each attempt, and the timer on which the next one waits. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from millrace_core import ids, limits, record
from millrace_core.errors import Reject
from millrace_core.messages import (
    Delivery,
    DeliveryAttempted,
    DeliveryEnded,
    Raw,
    SetTimer,
    decode,
    encode,
    encode_with_payload,
)
from millrace_core.record import Output, Received
from millrace_dispatcher.outcome import Decision

FACTS = "delivery-facts"
TIMERS = "timers"
OVERFLOW = "deliveries-overflow"
RETRIES: Final = "deliveries-tx"
PURPOSE = "attempt"
RATE_PURPOSE = "rate"
# Stands where the record that named the event cannot be read.
UNKNOWN_EVENT = f"{ids.EVENT}_{0:032x}"


def attempted(
    asked_by: Received,
    delivery: Delivery,
    decision: Decision,
    *,
    at: int,
    duration_ms: float,
    url: str,
    status: int | None = None,
    response: bytes = b"",
) -> Sequence[Output]:
    """The attempt's fact and, when it is tried again, the timer for the next one. To be written together: the fact
    says that the delivery is alive, and the timer is its life."""
    fact = DeliveryAttempted(
        delivery=delivery.id,
        account=delivery.account,
        endpoint=delivery.endpoint,
        event=delivery.event,
        attempt=delivery.attempt,
        at=at,
        outcome=decision.outcome,
        duration_ms=round(duration_ms, 3),
        url=url,
        status=status,
        error=decision.error,
        response=_text(response),
        retry_at=decision.retry_at,
    )
    written = _fact(asked_by, delivery, encode(fact))
    if decision.retry_at is None:
        return (written,)
    following = msgspec.structs.replace(delivery, attempt=delivery.attempt + 1, waits=0)
    id = ids.timer_id_of(delivery.id, PURPOSE, following.attempt)
    return (written, _timer(asked_by, following, id, decision.retry_at))


def postponed(asked_by: Received, delivery: Delivery, due: int) -> Sequence[Output]:
    """The timer that asks for the same attempt again when its endpoint's rate has room for it. After a crash in between
    the record may find room at once: its attempt is then made twice, under the same id."""
    following = msgspec.structs.replace(delivery, waits=delivery.waits + 1)
    id = ids.timer_id_of(delivery.id, f"{RATE_PURPOSE}/{delivery.attempt}", following.waits)
    return (_timer(asked_by, following, id, due),)


def moved(asked_by: Received) -> Sequence[Output]:
    """The record as it is, on the log of what waits for its turn."""
    return (Output(OVERFLOW, asked_by.key, asked_by.value, tuple(asked_by.headers)),)


def cancelled(asked_by: Received, delivery: Delivery, *, at: int, reason: str) -> Sequence[Output]:
    """The endpoint is not there any more, or switched off: the delivery ends without an attempt."""
    return (_fact(asked_by, delivery, _ended(delivery, "cancelled", at, reason)),)


def stale(asked_by: Received, delivery: Delivery, *, at: int) -> Sequence[Output]:
    """Too old to tell whether it was had before. The weakest end: any other fact stands over it."""
    reason = "the record that asked for it lies too far back to tell whether it was delivered already"
    return (_fact(asked_by, delivery, _ended(delivery, "stale", at, reason)),)


def dead_lettered(asked_by: Received, reason: str, *, at: int) -> Sequence[Output]:
    """The end of a delivery whose record was parked, as far as its value or its headers still name it."""
    try:
        delivery = decode(asked_by.value, Delivery)
        ids.uuid_of(delivery.id)
    except Reject:
        named = [record.header(asked_by, name) or b"" for name in (record.ACCOUNT, record.ID)]
        account, id, endpoint = (part.decode("utf-8", "replace") for part in (*named, asked_by.key or b""))
        if not account or not all(map(_is_id, (id, endpoint))):
            return ()
        delivery = Delivery(id=id, account=account, endpoint=endpoint, event=UNKNOWN_EVENT, type="")
    return (_fact(asked_by, delivery, _ended(delivery, "dead_lettered", at, reason)),)


def _is_id(written: str) -> bool:
    try:
        ids.uuid_of(written)
    except Reject:
        return False
    return True


def _ended(delivery: Delivery, outcome: str, at: int, reason: str) -> bytes:
    return encode(
        DeliveryEnded(
            delivery=delivery.id,
            account=delivery.account,
            endpoint=delivery.endpoint,
            event=delivery.event,
            at=at,
            outcome=outcome,  # type: ignore[arg-type]
            reason=reason,
        )
    )


def _fact(asked_by: Received, delivery: Delivery, value: bytes) -> Output:
    return Output(FACTS, delivery.id.encode(), value, _headers(asked_by, delivery, delivery.id))


def _timer(asked_by: Received, following: Delivery, id: str, due: int) -> Output:
    asked, payload_at = encode_with_payload(following, following.body)
    timer = SetTimer(
        id=id,
        owner=following.id,
        account=following.account,
        due=due,
        topic=RETRIES,
        key=following.endpoint,
        payload_at=int(payload_at),
        record=Raw(asked),
    )
    value, start = encode_with_payload(timer, timer.record)
    headers = (*_headers(asked_by, following, id), (record.PAYLOAD, start))
    return Output(TIMERS, following.id.encode(), value, headers)


def _headers(asked_by: Received, delivery: Delivery, id: str) -> tuple[tuple[str, bytes], ...]:
    headers = [
        (record.ACCOUNT, delivery.account.encode()),
        (record.ID, id.encode()),
        (record.SOURCE, record.source_of(asked_by)),
    ]
    headers += [(name, value) for name, value in asked_by.headers if name in (record.CONTROL, record.TRACEPARENT)]
    return tuple(headers)


def _text(response: bytes) -> str | None:
    if not response:
        return None
    return response[: limits.RESPONSE_KEPT_BYTES_MAX].decode("utf-8", "replace").replace("\x00", "\ufffd")
