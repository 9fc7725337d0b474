"""Replays: past events written to the log again, to one subscription or to all.

Which events: those of a time range whose identifier and properties fit, by the rules of subscriptions (`matching`). A
replayed event keeps its id and gets the replay's beside it, which is part of every id derived from it: it starts anew
what the event started, once for each replay. Counting and replaying read the same pages.
Not here: the worker that writes them (`millrace_api.replaying`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from millrace_api.application.database import Database
from millrace_api.application.notation import stored, written
from millrace_api.application.problems import Conflict, Invalid, NotFound, at
from millrace_core import expressions, filters, identifiers, ids, limits
from millrace_core.errors import Reject
from millrace_core.expressions import WhereConditions
from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import Event, Raw, SubscriptionControl, encode
from millrace_store import payloads, queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/replays")
EVERYTHING = "e:*/*"
FIRST = UUID(int=0)
_CHOSEN = "chosen"

Place = tuple[datetime, UUID]
"""Behind an event, in the order in which events were received: when that was, and its id."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Received at `since` or later, and before `until` (None = now)."""

    since: datetime
    until: datetime | None = None
    pattern: str = EVERYTHING
    filter: dict[str, Any] | None = None
    where: str | None = None
    subscription: str | None = None
    per_s: int = limits.REPLAY_PER_S_DEFAULT


@dataclass(frozen=True, slots=True)
class Counted:
    """How many events a replay would write. Not `complete`: so many at least, the time for counting was over."""

    events: int
    looked_at: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ReplayView:
    """`reached` is when the last event dealt with was received: it goes from `since` to `until`."""

    id: str
    state: str
    since: datetime
    until: datetime
    reached: datetime
    looked_at: int
    written: int
    pattern: str
    filter: dict[str, Any] | None
    where: str | None
    subscription: str | None
    per_s: int
    requested_by: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None


class Selection:
    """Which events of an account a replay takes: those that a subscription with this pattern and filter would hear."""

    def __init__(self, account: str, *, pattern: str, filter: str | None, where: str | None) -> None:
        self.account = account
        parsed = identifiers.parse_pattern(pattern)
        self.identifier = str(parsed) if parsed.is_exact else None
        self._index = SubscriptionIndex(conditions=WhereConditions())
        control = SubscriptionControl(
            account=account,
            pattern=pattern,
            target_kind="plan",
            target_id="",
            created_at=0,
            where=where,
            filter=Raw(b"null" if filter is None else filter.encode()),
        )
        self._index.apply(account, _CHOSEN, encode(control))

    def takes(self, event: Event) -> bool:
        """Whether it is one of them. One whose properties cannot be read is none."""
        try:
            heard = self._index.match(
                self.account, event.identifier, bytes(event.properties), received_at=event.received_at, event=event
            )
        except Reject:
            return False
        return bool(heard)


async def count(
    database: Database, account: str, wanted: Wanted, *, now: datetime, clock: Callable[[], float]
) -> Counted:
    """How many it would be, within the time there is for counting."""
    selection, until = _checked(account, wanted, now)
    deadline = clock() + limits.REPLAY_COUNT_S_MAX
    cursor, looked_at, taken = (wanted.since, FIRST), 0, 0
    async with database.asking() as tx:
        await _hear(tx, account, wanted.subscription)
    while clock() < deadline:
        async with database.asking() as tx:
            rows = await page(tx, account, selection.identifier, after=cursor, until=until)
        if not rows:
            return Counted(taken, looked_at, complete=True)
        looked_at += len(rows)
        taken += sum(selection.takes(event_of(row, account)) for row in rows)
        cursor = rows[-1]["received_at"], rows[-1]["id"]
    return Counted(taken, looked_at, complete=False)


async def create(tx: Connection, account: str, wanted: Wanted, *, now: datetime, requested_by: str) -> ReplayView:
    """Ask for a replay. Raises Conflict when the account has too many under way."""
    _, until = _checked(account, wanted, now)
    await tx.execute(_SQL["hold_account"], account)
    if await tx.fetchval(_SQL["count_live"], account) >= limits.REPLAYS_LIVE_MAX:
        raise Conflict(f"{limits.REPLAYS_LIVE_MAX} replays are under way: wait for one to end, or cancel it.")
    row = await tx.fetchrow(
        _SQL["insert_replay"],
        account,
        ids.uuid_of(ids.new_id(ids.REPLAY)),
        wanted.since,
        until,
        wanted.pattern,
        None if wanted.filter is None else orjson.dumps(wanted.filter).decode(),
        wanted.where,
        await _hear(tx, account, wanted.subscription),
        wanted.per_s,
        requested_by,
        now,
    )
    assert row is not None
    return _view(row)


async def get(tx: Connection, account: str, id: str) -> ReplayView:
    row = await tx.fetchrow(_SQL["get_replay"], account, _stored(id))
    if row is None:
        raise NotFound("replay", id)
    return _view(row)


async def listed(tx: Connection, account: str, *, below: UUID | None, count: int) -> list[ReplayView]:
    """Newest first."""
    return [_view(row) for row in await tx.fetch(_SQL["list_replays"], account, below, count)]


async def cancel(tx: Connection, account: str, id: str, *, now: datetime, requested_by: str) -> ReplayView:
    """End it: nothing more is written but for a step that is under way. Raises Conflict when it is over."""
    row = await tx.fetchrow(_SQL["end_replay"], account, _stored(id), "cancelled", f"by {requested_by}", now)
    if row is None:
        over = await get(tx, account, id)
        raise Conflict(f"This replay is over ({over.state}): there is nothing to cancel.")
    return _view(row)


# ── what the worker and backtests share ───────────────────────────────────────────────────────────────────────────────
async def page(tx: Connection, account: str, identifier: str | None, *, after: Place, until: datetime) -> Sequence[Row]:
    """The next events of the range (None = of every identifier), fitting or not, in the order in which they were
    received; none = its end."""
    bounds = (account, *after, until, limits.REPLAY_PAGE_EVENTS, limits.REPLAY_PAGE_BYTES)
    if identifier is None:
        rows = await tx.fetch(_SQL["events_between"], *bounds)
    else:
        rows = await tx.fetch(_SQL["events_of_between"], *bounds, identifier)
    return await payloads.restored(tx, account, rows, "properties")


def event_of(row: Row, account: str, *, replay: str | None = None, only: str | None = None) -> Event:
    """The event of a row of the read models, as it was received."""
    return Event(
        id=ids.prefixed(ids.EVENT, row["id"]),
        account=account,
        identifier=row["identifier"],
        received_at=round(row["received_at"].timestamp() * 1000),
        timestamp=row["timestamp"],
        unique_key=row["unique_key"],
        ordering_key=row["ordering_key"],
        replay=replay,
        only=only,
        hops=row["hops"],
        extensions=None if row["extensions"] is None else orjson.loads(row["extensions"]),
        properties=Raw(row["properties"]),
    )


# ── checking and showing ────────────────────────────────────────────────────────────────────────────────────────────
def _checked(account: str, wanted: Wanted, now: datetime) -> tuple[Selection, datetime]:
    """What it takes, and until when. Raises Invalid."""
    until = now if wanted.until is None else wanted.until
    if until > now:
        raise Invalid("lies ahead: a replay is of what was received already", where="until")
    if wanted.since >= until:
        raise Invalid("must be before `until`", where="since")
    with at("pattern"):
        identifiers.parse_pattern(wanted.pattern)
    text = None if wanted.filter is None else orjson.dumps(wanted.filter).decode()
    if text is not None:
        with at("filter"):
            filters.parse_filter(text.encode())
    if wanted.where is not None:
        with at("where"):
            expressions.check_condition(wanted.where)
    return Selection(account, pattern=wanted.pattern, filter=text, where=wanted.where), until


async def _hear(tx: Connection, account: str, subscription: str | None) -> UUID | None:
    """The subscription that shall hear it alone, which must be there and enabled."""
    if subscription is None:
        return None
    missing = Invalid(f"there is no subscription {subscription[:64]!r} in this account", where="subscription")
    try:
        uuid = stored(subscription, "subscription", ids.SUBSCRIPTION)
    except NotFound:
        raise missing from None
    enabled = await tx.fetchval(_SQL["subscription_of_replay"], account, uuid)
    if enabled is None:
        raise missing
    if not enabled:
        raise Conflict("This subscription is disabled and would hear nothing: enable it first.")
    return uuid


def _stored(id: str) -> UUID:
    return stored(id, "replay", ids.REPLAY)


def _view(row: Row) -> ReplayView:
    return ReplayView(
        id=ids.prefixed(ids.REPLAY, row["id"]),
        state=row["state"],
        since=row["since"],
        until=row["until"],
        reached=row["until"] if row["state"] == "completed" else row["cursor_at"],
        looked_at=row["looked_at"],
        written=row["written"],
        pattern=row["pattern"],
        filter=None if row["filter"] is None else orjson.loads(row["filter"]),
        where=row["where"],
        subscription=written(ids.SUBSCRIPTION, row["subscription"]),
        per_s=row["per_s"],
        requested_by=row["requested_by"],
        reason=row["reason"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        ended_at=row["ended_at"],
    )
