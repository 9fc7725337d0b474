"""Webhook endpoints: where deliveries go, what they are signed with, and what they hear of. One for every surface.

An endpoint's list of events holds patterns and documents' names (`event_names`). It is kept as subscriptions managed by
the endpoint, changed in the same transaction. Saving a URL asks no name server: literal addresses are judged here,
names when the dispatcher connects. Secrets are sealed under the key ring, bound to account and endpoint, and shown
once. After a rotation both secrets sign until the old one's time ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from millrace_api.application import merging, subscriptions
from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_api.application.subscriptions import Target
from millrace_core import event_names, ids, limits, signing
from millrace_core.egress import Network, check_url
from millrace_core.keyring import KeyRing, endpoint_secret
from millrace_store import queries
from millrace_store.aggregates import Row, endpoint_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/webhooks")

EVENTS_MAX = 50
ROTATION_GRACE_S = 24 * 3_600
ROTATION_GRACE_S_MAX = 7 * 24 * 3_600
RETIRED_AT_ONCE_MAX = 100
# Standard Webhooks asks for 24 to 64 bytes; documents show shorter ones, so only the plainly guessable is refused.
SECRET_BYTES_MIN = 12
SECRET_CHARS_MAX = 256
Style = Literal["standard", "ops"]
"""`ops` adds the headers of that document: `X-OpsIQ-Signature` and its like."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    id: str
    url: str
    description: str | None
    events: list[str]
    enabled: bool
    retry_schedule_s: list[float] | None
    timeout_s: float
    concurrency: int
    rate: float | None
    disabled_at: datetime | None
    disabled_reason: Literal["requested", "gone", "failing"] | None
    old_secret_until: datetime | None
    style: Style
    priority: int
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewEndpointView(EndpointView):
    """An endpoint with its secret: at its creation and after a rotation, never again."""

    secret: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An endpoint as its owner wants it. `events` are identifier patterns, and documents' names of events."""

    url: str
    events: Sequence[str] = ()
    description: str | None = None
    enabled: bool = True
    retry_schedule_s: Sequence[float] | None = None
    timeout_s: float = limits.WEBHOOK_TIMEOUT_S
    concurrency: int = 32
    rate: float | None = None
    style: Style = "standard"
    priority: int = subscriptions.PRIORITY["webhook"]


async def create(
    change: Change, account: str, wanted: Wanted, *, secret: str | None, ring: KeyRing, egress: Sequence[Network]
) -> NewEndpointView:
    """A given secret is taken as it is; without one a new one is made."""
    _check(wanted, egress)
    text = _secret(secret, wanted.style)
    id = ids.new_id(ids.ENDPOINT)
    row = await change.tx.fetchrow(
        _SQL["insert_endpoint"],
        account,
        ids.uuid_of(id),
        wanted.url,
        wanted.description,
        list(wanted.events),
        ring.seal(text, account=account, name=endpoint_secret(id)),
        wanted.enabled,
        None if wanted.retry_schedule_s is None else list(wanted.retry_schedule_s),
        wanted.timeout_s,
        wanted.concurrency,
        wanted.rate,
        change.now,
        wanted.style,
        wanted.priority,
    )
    assert row is not None
    await change.publish(endpoint_entry(row))
    await _subscribe(change, account, row, _patterns(wanted.events))
    return NewEndpointView(**_fields(row), secret=text)


async def get(tx: Connection, account: str, id: str) -> EndpointView:
    return EndpointView(**_fields(await row_of(tx, account, id)))


async def row_of(tx: Connection, account: str, id: str) -> Row:
    """The endpoint as it is kept, its secrets sealed."""
    row = await tx.fetchrow(_SQL["get_endpoint"], account, _stored(id))
    if row is None:
        raise NotFound("webhook", id)
    return row


def opened_secrets(row: Row, *, ring: KeyRing) -> tuple[str, ...]:
    """What it signs with now, newest first. Raises Reject when the key ring does not open it."""
    name = endpoint_secret(ids.prefixed(ids.ENDPOINT, row["id"]))
    sealed = (secret for secret in (row["sealed_secret"], row["old_sealed_secret"]) if secret)
    return tuple(ring.open(secret, account=row["account"], name=name) for secret in sealed)


async def listed(
    tx: Connection, account: str, *, below: UUID | None, count: int, skipped: int = 0
) -> list[EndpointView]:
    """Newest first."""
    rows = await tx.fetch(_SQL["list_endpoints"], account, below, count, skipped)
    return [EndpointView(**_fields(row)) for row in rows]


async def total(tx: Connection, account: str) -> int:
    """How many there are."""
    row = await tx.fetchrow(_SQL["count_endpoints"], account)
    assert row is not None
    return int(row["total"])


async def update(
    change: Change, account: str, id: str, wanted: dict[str, Any], *, egress: Sequence[Network]
) -> EndpointView:
    """Change the members named in `wanted` (those of Wanted); the rest stays, the secret too."""
    current = await _lock(change, account, id)
    view = EndpointView(**_fields(current))
    merged = merging.merged(Wanted, view, wanted)
    _check(merged, egress)
    row = await change.tx.fetchrow(
        _SQL["update_endpoint"],
        account,
        current["id"],
        merged.url,
        merged.description,
        list(merged.events),
        merged.enabled,
        None if merged.retry_schedule_s is None else list(merged.retry_schedule_s),
        merged.timeout_s,
        merged.concurrency,
        merged.rate,
        change.now,
        merged.style,
        merged.priority,
    )
    assert row is not None
    await change.publish(endpoint_entry(row))
    if (list(merged.events), merged.priority) != (view.events, view.priority):
        await _resubscribe(change, account, row, _patterns(merged.events))
    return EndpointView(**_fields(row))


async def rotate_secret(
    change: Change, account: str, id: str, *, secret: str | None, grace_s: int, ring: KeyRing
) -> NewEndpointView:
    """Sign with a new secret from now on, and with the old one too until `grace_s` is over."""
    current = await _lock(change, account, id)
    text = _secret(secret, current["style"])
    row = await change.tx.fetchrow(
        _SQL["rotate_secret"],
        account,
        current["id"],
        ring.seal(text, account=account, name=endpoint_secret(id)),
        change.now + timedelta(seconds=grace_s),
        change.now,
    )
    assert row is not None
    await change.publish(endpoint_entry(row))
    return NewEndpointView(**_fields(row), secret=text)


async def delete(change: Change, account: str, id: str) -> None:
    """Raises Conflict while subscriptions of others point at it; its own go with it."""
    current = await _lock(change, account, id)
    await subscriptions.refuse_if_used(change.tx, account, "webhook", current["id"], what="webhook")
    for row in await subscriptions.managed(change, account, current["id"]):
        await subscriptions.remove(change, account, row["id"])
    deleted = await change.tx.fetchrow(_SQL["delete_endpoint"], account, current["id"], change.now)
    assert deleted is not None
    await change.publish(endpoint_entry(deleted))


async def forget_old_secrets(change: Change) -> int:
    """Stop signing with old secrets whose time is over, in every account. How many endpoints that were."""
    rows = await change.tx.fetch(_SQL["forget_old_secrets"], change.now, RETIRED_AT_ONCE_MAX)
    for row in rows:
        await change.publish(endpoint_entry(row))
    return len(rows)


async def _subscribe(change: Change, account: str, endpoint: Row, patterns: Sequence[str]) -> None:
    target = Target("webhook", ids.prefixed(ids.ENDPOINT, endpoint["id"]))
    for pattern in patterns:
        wanted = subscriptions.Wanted(pattern=pattern, target=target, priority=endpoint["priority"])
        await subscriptions.insert(change, account, wanted, target=endpoint["id"], managed_by=endpoint["id"])


async def _resubscribe(change: Change, account: str, endpoint: Row, patterns: Sequence[str]) -> None:
    """Patterns that stay keep their subscription, so what they match is delivered as the same delivery."""
    kept: set[str] = set()
    for row in await subscriptions.managed(change, account, endpoint["id"]):
        if row["pattern"] in patterns and row["pattern"] not in kept:
            kept.add(row["pattern"])
            if row["priority"] != endpoint["priority"]:
                await subscriptions.set_priority(change, account, row["id"], endpoint["priority"])
        else:
            await subscriptions.remove(change, account, row["id"])
    await _subscribe(change, account, endpoint, [pattern for pattern in patterns if pattern not in kept])


async def _lock(change: Change, account: str, id: str) -> Row:
    row = await change.tx.fetchrow(_SQL["lock_endpoint"], account, _stored(id))
    if row is None:
        raise NotFound("webhook", id)
    return row


def _check(wanted: Wanted, egress: Sequence[Network]) -> None:
    with at("url"):
        check_url(wanted.url, egress)
    patterns = _patterns(wanted.events)
    if len(patterns) > EVENTS_MAX or len(set(patterns)) != len(patterns):
        raise Invalid(f"at most {EVENTS_MAX} events, each once and under one name", where="events")
    schedule = wanted.retry_schedule_s
    if schedule is not None and not (
        len(schedule) < limits.WEBHOOK_ATTEMPTS_MAX
        and all(0 < wait <= limits.WEBHOOK_RETRY_AFTER_S_MAX for wait in schedule)
    ):
        raise Invalid(
            f"up to {limits.WEBHOOK_ATTEMPTS_MAX - 1} waits in seconds, each above 0 and at most "
            f"{limits.WEBHOOK_RETRY_AFTER_S_MAX:g}",
            where="retry_schedule_s",
        )


def _patterns(events: Sequence[str]) -> list[str]:
    """The patterns that the list stands for."""
    patterns: list[str] = []
    for index, written in enumerate(events):
        with at(f"events.{index}"):
            patterns.append(event_names.pattern_of(written))
    return patterns


def _secret(given: str | None, style: Style) -> str:
    if given is not None:
        return checked_secret(given)
    # Readers of the ops document sign with the text as it stands.
    return signing.new_plain_secret() if style == "ops" else signing.new_secret()


def checked_secret(given: str) -> str:
    """A secret that its owner made. Raises Invalid when it is too easily guessed."""
    with at("secret"):
        if len(signing.secret_bytes(given)) < SECRET_BYTES_MIN or len(given) > SECRET_CHARS_MAX:
            raise Invalid(
                f"a secret has at least {SECRET_BYTES_MIN} bytes and at most {SECRET_CHARS_MAX} characters; leave it "
                "out to get a good one",
                where="secret",
            )
    return given


def _stored(id: str) -> UUID:
    return stored(id, "webhook", ids.ENDPOINT)


def _fields(row: Row) -> Mapping[str, Any]:
    same = (
        "url",
        "description",
        "events",
        "enabled",
        "retry_schedule_s",
        "timeout_s",
        "concurrency",
        "rate",
        "disabled_at",
        "disabled_reason",
        "old_secret_until",
        "style",
        "priority",
        "version",
        "created_at",
        "updated_at",
    )
    return {"id": ids.prefixed(ids.ENDPOINT, row["id"])} | {name: row[name] for name in same}
