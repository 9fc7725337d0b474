"""Events as received, and what they came to: outcome, runs, deliveries."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from millrace_api.application.notation import stored, written, written_plan
from millrace_api.application.problems import NotFound, at
from millrace_api.application.views import Json, raw
from millrace_core import ids
from millrace_core.identifiers import parse_identifier
from millrace_store import payloads, queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/events")
MATCHES_SHOWN_MAX = 1_000

Below = tuple[datetime, UUID]
"""Sort keys of the last row of the page before."""


@dataclass(frozen=True, slots=True)
class EventSummary:
    id: str
    identifier: str
    received_at: datetime
    timestamp: str | None
    unique_key: str | None
    ordering_key: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class MatchView:
    """One thing the event started. `status` is null until it is in the read models."""

    type: Literal["run", "delivery"]
    id: str
    subscription: str | None
    target: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class EventView:
    """`outcome` is null until the event was decided; `repeats` counts posts with the same uniqueKey after it."""

    id: str
    identifier: str
    received_at: datetime
    timestamp: str | None
    unique_key: str | None
    ordering_key: str | None
    replay: str | None
    extensions: Json
    properties: Json
    outcome: str | None
    decided_at: datetime | None
    reason: str | None
    repeats: int
    matches: list[MatchView]
    matches_total: int


async def get(tx: Connection, account: str, id: str) -> EventView:
    uuid = stored(id, "event", ids.EVENT)
    row = await tx.fetchrow(_SQL["get_event"], account, uuid)
    if row is None:
        raise NotFound("event", id)
    (whole,) = await payloads.restored(tx, account, [row], "properties")
    matches = [_match(match) for match in await tx.fetch(_SQL["matches_of_event"], account, uuid, MATCHES_SHOWN_MAX)]
    total = len(matches)
    if total == MATCHES_SHOWN_MAX:
        total = await tx.fetchval(_SQL["count_matches"], account, uuid)
    repeats = await tx.fetchval(_SQL["event_repeats"], account, uuid)
    return _view(whole, matches, total=total, repeats=repeats)


async def listed(
    tx: Connection, account: str, *, below: Below, count: int, identifier: str | None = None
) -> list[EventSummary]:
    """Newest first."""
    if identifier is None:
        rows = await tx.fetch(_SQL["list_events"], account, *below, count)
    else:
        with at("identifier"):
            parse_identifier(identifier)
        rows = await tx.fetch(_SQL["list_events_of"], account, *below, count, identifier)
    return [_summary(row) for row in rows]


def _summary(row: Row) -> EventSummary:
    return EventSummary(
        id=ids.prefixed(ids.EVENT, row["id"]),
        identifier=row["identifier"],
        received_at=row["received_at"],
        timestamp=row["timestamp"],
        unique_key=row["unique_key"],
        ordering_key=row["ordering_key"],
        bytes=row["bytes"],
    )


def _match(row: Row) -> MatchView:
    subscription = written(ids.SUBSCRIPTION, row["subscription"])
    if row["kind"] == "run":
        plan = written_plan(row["plan"], row["plan_kind"])
        return MatchView("run", ids.prefixed(ids.RUN, row["child"]), subscription, plan, row["run_status"])
    endpoint = written(ids.ENDPOINT, row["endpoint"])
    return MatchView(
        "delivery", ids.prefixed(ids.DELIVERY, row["child"]), subscription, endpoint, row["delivery_status"]
    )


def _view(row: Row, matches: list[MatchView], *, total: int, repeats: int) -> EventView:
    return EventView(
        id=ids.prefixed(ids.EVENT, row["id"]),
        identifier=row["identifier"],
        received_at=row["received_at"],
        timestamp=row["timestamp"],
        unique_key=row["unique_key"],
        ordering_key=row["ordering_key"],
        replay=row["replay"],
        extensions=None if row["extensions"] is None else raw(row["extensions"].encode()),
        properties=raw(row["properties"]),
        outcome=row["outcome"],
        decided_at=row["decided_at"],
        reason=row["reason"],
        repeats=repeats,
        matches=matches,
        matches_total=total,
    )
