"""Deliveries: one message for one webhook endpoint, with every attempt that was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from millrace_api.application.notation import stored, written
from millrace_api.application.problems import Invalid, NotFound
from millrace_api.application.views import ErrorView, Json, error_of, raw
from millrace_core import ids
from millrace_store import payloads, queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/deliveries")
STATUSES = ("queued", "retrying", "succeeded", "failed", "cancelled", "stale", "dead_lettered")

Below = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    id: str
    status: str
    type: str | None
    webhook: str
    event: str
    subscription: str | None
    attempts_made: int
    next_attempt_at: datetime | None
    last_status: int | None
    error: ErrorView | None
    created_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryAttemptView:
    n: int
    outcome: str
    at: datetime
    duration_ms: float
    url: str
    status: int | None
    error: ErrorView | None
    response: str | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryView(DeliverySummary):
    """`body` is what was signed and sent."""

    body: Json
    attempts: list[DeliveryAttemptView]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries a list shows; None = any."""

    status: str | None = None
    webhook: str | None = None
    event: str | None = None


async def get(tx: Connection, account: str, id: str) -> DeliveryView:
    uuid = stored(id, "delivery", ids.DELIVERY)
    row = await tx.fetchrow(_SQL["get_delivery"], account, uuid)
    if row is None:
        raise NotFound("delivery", id)
    (whole,) = await payloads.restored(tx, account, [row], "body")
    attempts = [_attempt(attempt) for attempt in await tx.fetch(_SQL["attempts_of_delivery"], account, uuid)]
    return DeliveryView(**_summary(whole), body=raw(whole["body"]), attempts=attempts)


async def listed(tx: Connection, account: str, *, below: Below, count: int, filter: Filter) -> list[DeliverySummary]:
    """Newest first."""
    if filter.status is not None and filter.status not in STATUSES:
        raise Invalid(f"one of {', '.join(STATUSES)}", where="status")
    rows = await tx.fetch(
        _SQL["list_deliveries"],
        account,
        *below,
        count,
        filter.status,
        None if filter.webhook is None else stored(filter.webhook, "webhook", ids.ENDPOINT),
        None if filter.event is None else stored(filter.event, "event", ids.EVENT),
    )
    return [DeliverySummary(**_summary(row)) for row in rows]


def _summary(row: Row) -> Mapping[str, Any]:
    return {
        "id": ids.prefixed(ids.DELIVERY, row["id"]),
        "status": row["status"],
        "type": row["type"],
        "webhook": ids.prefixed(ids.ENDPOINT, row["endpoint"]),
        "event": ids.prefixed(ids.EVENT, row["event"]),
        "subscription": written(ids.SUBSCRIPTION, row["subscription"]),
        "attempts_made": row["attempts"],
        "next_attempt_at": row["next_attempt_at"],
        "last_status": row["last_status"],
        "error": error_of(row),
        "created_at": row["created_at"],
        "ended_at": row["ended_at"],
    }


def _attempt(row: Row) -> DeliveryAttemptView:
    return DeliveryAttemptView(
        n=row["n"],
        outcome=row["outcome"],
        at=row["at"],
        duration_ms=row["duration_ms"],
        url=row["url"],
        status=row["status"],
        error=error_of(row),
        response=row["response"],
        retry_at=row["retry_at"],
    )
