"""Endpoints that the platform disables: who answered 410, and who has done nothing but fail for days.

They are judged by the read models, by what came since they were created, enabled or given their URL. Disabling is a
change like its owner's: one transaction with its entry on the way to `control`, and with a row from which the event
about it is made, `e:millrace/endpoint.disabled`, which a subscription must name to hear it. The event's id and
uniqueKey follow from that row, so it may be written again after a crash, and counts once. Its owner enables it again.
Not here: when it is looked (`judging`), what a disabled endpoint means for its deliveries (the dispatcher).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from millrace_api.application.changes import Change
from millrace_core import ids, limits
from millrace_core.event import Posted, iso_of, make_event
from millrace_core.messages import Event, Raw
from millrace_store import queries
from millrace_store.aggregates import Row, endpoint_entry, ms
from millrace_store.pool import Connection

_SQL = queries.load("api/disabling")

IDENTIFIER: Final = "e:millrace/endpoint.disabled"
# A circle of endpoints that each disable the next ends with the last of them.
HOPS = 1
AT_ONCE_MAX = 100
NEWEST_LOOKED_AT = 20

Reason = Literal["gone", "failing"]
MESSAGES: dict[str, str] = {
    "gone": "the endpoint answered 410 Gone, so nothing is sent to it any more; enable it when it is back",
    "failing": "every attempt of five days failed, so nothing is sent to it any more; mend it and enable it",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """An endpoint that is to be disabled. `since`: what counts against it began then."""

    account: str
    endpoint: UUID
    since: datetime


@dataclass(frozen=True, slots=True)
class Disabling:
    """One that was."""

    account: str
    endpoint: UUID
    disabled_at: datetime
    reason: str
    since: datetime


async def gone(tx: Connection) -> list[Judged]:
    """The endpoints, of all accounts, that answered 410."""
    return _judged(await tx.fetch(_SQL["gone_endpoints"], AT_ONCE_MAX))


async def failing(tx: Connection, now: datetime) -> list[Judged]:
    """The endpoints, of all accounts, that have failed for days and still do."""
    since = now - timedelta(seconds=limits.ENDPOINT_FAILING_S)
    lately = now - timedelta(seconds=limits.ENDPOINT_FAILING_LATELY_S)
    return _judged(await tx.fetch(_SQL["failing_endpoints"], since, lately, NEWEST_LOOKED_AT))


async def disable(change: Change, judged: Judged, reason: Reason) -> bool:
    """Whether it was; not when it was changed, deleted or disabled since it was judged."""
    key = judged.account, judged.endpoint
    row = await change.tx.fetchrow(_SQL["disable_endpoint"], *key, judged.since, change.now, reason)
    if row is None:
        return False
    await change.tx.execute(_SQL["insert_disabling"], *key, change.now, reason, judged.since)
    await change.publish(endpoint_entry(row))
    return True


async def untold(tx: Connection) -> list[Disabling]:
    """Those whose event may not be on the log yet, the oldest first."""
    rows = await tx.fetch(_SQL["untold_disablings"], AT_ONCE_MAX)
    return [Disabling(row["account"], row["endpoint"], row["disabled_at"], row["reason"], row["since"]) for row in rows]


async def told(tx: Connection, one: Disabling, now: datetime) -> None:
    """Its event is on the log."""
    await tx.execute(_SQL["tell_disabling"], one.account, one.endpoint, one.disabled_at, now)


def event_of(one: Disabling) -> Event:
    """The event about it, the same each time."""
    at_ms, endpoint = ms(one.disabled_at), ids.prefixed(ids.ENDPOINT, one.endpoint)
    properties = {
        "endpoint": endpoint,
        "reason": one.reason,
        "message": MESSAGES[one.reason],
        "disabled_at": iso_of(at_ms),
        "since": iso_of(ms(one.since)),
    }
    posted = Posted(IDENTIFIER, Raw(msgspec.json.encode(properties)), unique_key=f"{endpoint}/{at_ms}")
    return make_event(posted, account=one.account, now_ms=at_ms, hops=HOPS)


def _judged(rows: Sequence[Row]) -> list[Judged]:
    return [Judged(row["account"], row["id"], row["since"]) for row in rows]
