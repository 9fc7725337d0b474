"""Subscriptions: which events start what. Everything about one is checked when it is saved.

The target is held (a shared lock) while the subscription is pointed at it, so it cannot be deleted in between. What a
webhook endpoint listens to by its own list of events are subscriptions too, managed by the endpoint and changed there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, get_args
from uuid import UUID

import orjson

from millrace_api.application import flows, merging
from millrace_api.application.changes import Change
from millrace_api.application.notation import stored, written
from millrace_api.application.problems import Conflict, Invalid, NotFound, at
from millrace_core import expressions, filters, identifiers, ids
from millrace_core.flow import check_flow
from millrace_store import queries
from millrace_store.aggregates import TARGET_PREFIX, Row, subscription_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/subscriptions")

TargetKind = Literal["job", "chain", "workflow", "webhook"]
TARGET_KINDS: tuple[str, ...] = get_args(TargetKind)

AUTOMATION_PRIORITY = 200
PRIORITY: Mapping[str, int] = MappingProxyType({"assistant": 100, "connector": 300, "webhook": 400})
"""The order in which those who hear an event are started, where their owner does not say otherwise: the assistant,
automation rules (anything that is not named here), connectors, webhook endpoints. None waits for another's end."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a subscription starts, or delivers to."""

    type: TargetKind
    id: str


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    id: str
    pattern: str
    filter: dict[str, Any] | None
    where: str | None
    priority: int
    target: Target
    flow: dict[str, Any] | None
    enabled: bool
    managed_by: str | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A subscription as its owner wants it."""

    pattern: str
    target: Target
    filter: dict[str, Any] | None = None
    where: str | None = None
    priority: int | None = None  # None = as its target has it
    enabled: bool = True
    flow: dict[str, Any] | None = None


async def create(change: Change, account: str, wanted: Wanted) -> SubscriptionView:
    target = await _checked(change.tx, account, wanted)
    row = await insert(change, account, wanted, target=target, managed_by=None)
    return _view(row)


async def insert(change: Change, account: str, wanted: Wanted, *, target: UUID, managed_by: UUID | None) -> Row:
    """Write a subscription whose parts have been checked. Webhook endpoints make theirs by this."""
    row = await change.tx.fetchrow(
        _SQL["insert_subscription"],
        account,
        ids.uuid_of(ids.new_id(ids.SUBSCRIPTION)),
        wanted.pattern,
        _filter_text(wanted),
        wanted.where,
        priority_of(wanted),
        wanted.target.type,
        target,
        wanted.enabled,
        managed_by,
        change.now,
        flows.kept(wanted.flow, before=None),
    )
    assert row is not None
    await change.publish(subscription_entry(row))
    return row


def priority_of(wanted: Wanted) -> int:
    """Its place among those that hear the same event: lower starts first."""
    return PRIORITY.get(wanted.target.type, AUTOMATION_PRIORITY) if wanted.priority is None else wanted.priority


async def get(tx: Connection, account: str, id: str) -> SubscriptionView:
    row = await tx.fetchrow(_SQL["get_subscription"], account, _stored(id))
    if row is None:
        raise NotFound("subscription", id)
    return _view(row)


async def listed(
    tx: Connection, account: str, *, below: UUID | None, count: int, target: str | None = None
) -> list[SubscriptionView]:
    """Newest first; `target` leaves only those of one job, chain, workflow or endpoint."""
    kind, uuid = None, None
    if target is not None:
        kind, uuid = _target_of(target)
    rows = await tx.fetch(_SQL["list_subscriptions"], account, below, kind, uuid, count)
    return [_view(row) for row in rows]


async def update(change: Change, account: str, id: str, wanted: dict[str, Any]) -> SubscriptionView:
    """Change the members named in `wanted` (those of Wanted); the rest stays."""
    current = await _lock(change, account, id)
    merged = merging.merged(Wanted, _view(current), wanted)
    target = await _checked(change.tx, account, merged)
    row = await change.tx.fetchrow(
        _SQL["update_subscription"],
        account,
        current["id"],
        merged.pattern,
        _filter_text(merged),
        merged.where,
        priority_of(merged),
        merged.target.type,
        target,
        merged.enabled,
        change.now,
        flows.kept(merged.flow, before=current["flow"]),
    )
    assert row is not None
    await change.publish(subscription_entry(row))
    return _view(row)


async def delete(change: Change, account: str, id: str) -> None:
    row = await _lock(change, account, id)
    await remove(change, account, row["id"])


async def remove(change: Change, account: str, uuid: UUID) -> None:
    """Delete a subscription that the caller has locked."""
    row = await change.tx.fetchrow(_SQL["delete_subscription"], account, uuid, change.now)
    assert row is not None
    await change.publish(subscription_entry(row))


async def set_priority(change: Change, account: str, uuid: UUID, priority: int) -> None:
    """Of a subscription that the caller has locked."""
    row = await change.tx.fetchrow(_SQL["set_priority"], account, uuid, priority, change.now)
    assert row is not None
    await change.publish(subscription_entry(row))


async def managed(change: Change, account: str, endpoint: UUID) -> Sequence[Row]:
    """The subscriptions an endpoint's list of events stands for, locked."""
    return await change.tx.fetch(_SQL["lock_managed"], account, endpoint)


async def refuse_if_used(tx: Connection, account: str, kind: TargetKind, uuid: UUID, *, what: str) -> None:
    """Raises Conflict, naming some, when subscriptions point at what shall be deleted."""
    rows = await tx.fetch(_SQL["subscriptions_of_target"], account, kind, uuid)
    if rows:
        users = ", ".join(ids.prefixed(ids.SUBSCRIPTION, row["id"]) for row in rows)
        raise Conflict(f"This {what} is the target of {users}: delete or change them first.")


def check_pattern(pattern: str, *, where: str) -> None:
    with at(where):
        identifiers.parse_pattern(pattern)


def check_terms(wanted: Wanted) -> None:
    """What can be known of it without looking anywhere: pattern, filter, condition. Raises Invalid."""
    check_pattern(wanted.pattern, where="pattern")
    if wanted.filter is not None:
        with at("filter"):
            filters.parse_filter(orjson.dumps(wanted.filter))
    if wanted.where is not None:
        with at("where"):
            expressions.check_condition(wanted.where)
    if wanted.flow is not None:
        if wanted.target.type == "webhook":
            raise Invalid(
                "only jobs, chains and workflows have a flow: a webhook has a concurrency of its own", where="flow"
            )
        with at("flow"):
            check_flow(flows.flow_of(wanted.flow))


def target_uuid(target: Target) -> UUID:
    """Raises Invalid when nothing of its type can have this id."""
    try:
        return stored(target.id, target.type, TARGET_PREFIX[target.type])
    except NotFound:
        raise no_target(target) from None


def no_target(target: Target) -> Invalid:
    return Invalid(f"there is no {target.type} {target.id[:64]!r} in this account", where="target.id")


async def _checked(tx: Connection, account: str, wanted: Wanted) -> UUID:
    check_terms(wanted)
    return await _hold_target(tx, account, wanted.target)


async def _hold_target(tx: Connection, account: str, target: Target) -> UUID:
    uuid = target_uuid(target)
    if target.type == "webhook":
        row = await tx.fetchrow(_SQL["hold_endpoint"], account, uuid)
    elif target.type == "workflow":
        row = await tx.fetchrow(_SQL["hold_workflow"], account, uuid)
        if row is not None and row["status"] != "published":
            raise Invalid("this workflow is a draft, which no event starts: publish it first", where="target.id")
    else:
        row = await tx.fetchrow(_SQL["hold_plan"], account, uuid, target.type)
    if row is None:
        raise no_target(target)
    return uuid


async def _lock(change: Change, account: str, id: str) -> Row:
    row = await change.tx.fetchrow(_SQL["lock_subscription"], account, _stored(id))
    if row is None:
        raise NotFound("subscription", id)
    if row["managed_by"] is not None:
        endpoint = ids.prefixed(ids.ENDPOINT, row["managed_by"])
        raise Conflict(f"This subscription belongs to webhook {endpoint}: change that webhook's events instead.")
    return row


def _target_of(id: str) -> tuple[str, UUID]:
    kind = next((kind for kind, prefix in TARGET_PREFIX.items() if id.startswith(prefix + "_")), None)
    try:
        return kind or "", stored(id, "target", TARGET_PREFIX.get(kind or "", ""))
    except NotFound:
        raise Invalid("not the id of a job, chain, workflow or webhook", where="target") from None


def _stored(id: str) -> UUID:
    return stored(id, "subscription", ids.SUBSCRIPTION)


def _filter_text(wanted: Wanted) -> str | None:
    return None if wanted.filter is None else orjson.dumps(wanted.filter).decode()


def _view(row: Row) -> SubscriptionView:
    return SubscriptionView(
        id=ids.prefixed(ids.SUBSCRIPTION, row["id"]),
        pattern=row["pattern"],
        filter=None if row["filter"] is None else orjson.loads(row["filter"]),
        where=row["where"],
        priority=row["priority"],
        target=Target(row["target_kind"], ids.prefixed(TARGET_PREFIX[row["target_kind"]], row["target_id"])),
        flow=flows.shown(row["flow"]),
        enabled=row["enabled"],
        managed_by=written(ids.ENDPOINT, row["managed_by"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
