"""Credentials: what steps and integrations prove themselves with, outward. Their values are never read back.

A value is sealed under the key ring, bound to its account and its credential, and opened where a call is made and
nowhere else. Steps name a credential by id or name, so a rotated value holds for the next attempt of any run. What is
in use cannot be deleted, and a plan cannot be saved with a credential that is not there: the credential's row is held
while a plan that names it is saved. Not here: how it is put into a request (`millrace_core.outgoing_credentials`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Conflict, Invalid, NotFound, at
from millrace_core import ids, limits
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, credential_value
from millrace_core.outgoing_credentials import (
    PLACEMENTS,
    Credential,
    CredentialType,
    Placement,
    check_hosts,
    check_placement,
    check_value,
)
from millrace_store import queries
from millrace_store.aggregates import PLAN_PREFIX, Row, credential_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/credentials")
USERS_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class PlacementView:
    """Where the value stands in a request."""

    where: str
    name: str
    prefix: str


@dataclass(frozen=True, slots=True)
class CredentialView:
    """A credential without its value."""

    id: str
    name: str
    type: CredentialType
    placement: PlacementView
    hosts: list[str]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A credential as its owner wants it."""

    name: str
    type: CredentialType
    value: str
    placement: Placement | None = None
    hosts: Sequence[str] = ()


async def create(change: Change, account: str, wanted: Wanted, *, ring: KeyRing) -> CredentialView:
    """Raises Conflict when there is one of this name."""
    if wanted.name.startswith(f"{ids.CREDENTIAL}_"):
        raise Invalid("a name that looks like an id would be taken for one", where="name")
    placement = wanted.placement or PLACEMENTS[wanted.type]
    _check(wanted.type, placement, wanted.hosts, wanted.value)
    id = ids.new_id(ids.CREDENTIAL)
    row = await change.tx.fetchrow(
        _SQL["insert_credential"],
        account,
        ids.uuid_of(id),
        wanted.name,
        wanted.type,
        ring.seal(wanted.value, account=account, name=credential_value(id)),
        placement.where,
        placement.name,
        placement.prefix,
        list(wanted.hosts),
        change.now,
    )
    if row is None:
        raise Conflict(f"There is a credential named {wanted.name!r}: change its value, or take another name.")
    await change.publish(credential_entry(row))
    return _view(row)


async def get(tx: Connection, account: str, id: str) -> CredentialView:
    return _view(await _row(tx, account, id, "get_credential"))


async def listed(
    tx: Connection, account: str, *, below: UUID | None, count: int, skipped: int = 0
) -> list[CredentialView]:
    """Newest first."""
    return [_view(row) for row in await tx.fetch(_SQL["list_credentials"], account, below, count, skipped)]


async def total(tx: Connection, account: str) -> int:
    """How many there are."""
    row = await tx.fetchrow(_SQL["count_credentials"], account)
    assert row is not None
    return int(row["total"])


async def update(change: Change, account: str, id: str, named: dict[str, Any], *, ring: KeyRing) -> CredentialView:
    """Change `value`, `placement` or `hosts`; what is not named stays. A new value holds from the next call on."""
    row = await _row(change.tx, account, id, "lock_credential")
    placement: Placement = named.get("placement") or _placement(row)
    hosts, value = named.get("hosts", row["hosts"]), named.get("value")
    _check(row["type"], placement, hosts, value)
    changed = await change.tx.fetchrow(
        _SQL["update_credential"],
        account,
        row["id"],
        row["sealed_value"] if value is None else ring.seal(value, account=account, name=credential_value(id)),
        placement.where,
        placement.name,
        placement.prefix,
        list(hosts),
        change.now,
    )
    assert changed is not None
    await change.publish(credential_entry(changed))
    return _view(changed)


async def delete(change: Change, account: str, id: str) -> None:
    """Raises Conflict, naming some, while a job, chain, workflow or integration uses it. Steps under way
    that need it fail."""
    row = await _row(change.tx, account, id, "lock_credential")
    users = await _users(change.tx, account, row)
    if users:
        more = f" and {len(users) - USERS_NAMED_MAX} more" if len(users) > USERS_NAMED_MAX else ""
        raise Conflict(f"This credential is used by {', '.join(users[:USERS_NAMED_MAX])}{more}: change them first.")
    deleted = await change.tx.fetchrow(_SQL["delete_credential"], account, row["id"], change.now)
    assert deleted is not None
    await change.publish(credential_entry(deleted))


async def hold(tx: Connection, account: str, named: str, *, where: str) -> Row:
    """The credential of this id or name, which stays until the end of the transaction. Raises Invalid for none."""
    uuid: UUID | None = None
    if "\0" in named:
        raise _no_such(named, where)
    if named.startswith(f"{ids.CREDENTIAL}_"):
        try:
            uuid = ids.uuid_of(named)
        except Reject:
            raise _no_such(named, where) from None
    row = await tx.fetchrow(_SQL["hold_credential"], account, uuid, named)
    if row is None:
        raise _no_such(named, where)
    return row


async def hold_all(tx: Connection, account: str, configs: Sequence[tuple[str, Any]]) -> None:
    """Hold what these configs of steps, each with where it stands, name. Raises Invalid for one that is not there."""
    for where, config in configs:
        named = named_in(config)
        if named is not None:
            await hold(tx, account, named, where=f"{where}.credential")


def named_in(config: Any) -> str | None:
    """The credential that a step's config names."""
    named = config.get("credential") if isinstance(config, dict) else None
    return named if isinstance(named, str) else None


def opened(row: Row, *, ring: KeyRing) -> Credential:
    """The credential with its value, for a call that is made now. Raises Reject when the key ring does not open it."""
    id = ids.prefixed(ids.CREDENTIAL, row["id"])
    value = ring.open(row["sealed_value"], account=row["account"], name=credential_value(id))
    return Credential(row["type"], _placement(row), tuple(row["hosts"]), value)


async def _users(tx: Connection, account: str, credential: Row) -> list[str]:
    names = {credential["name"], ids.prefixed(ids.CREDENTIAL, credential["id"])}
    plans = [
        ids.prefixed(PLAN_PREFIX[row["kind"]], row["id"])
        for row in await tx.fetch(_SQL["plans_with_credentials"], account)
        if _is_named(names, orjson.loads(row["definition"])["steps"])
    ]
    workflows = [
        ids.prefixed(ids.WORKFLOW, row["id"])
        for row in await tx.fetch(_SQL["workflows_with_credentials"], account)
        if any(_is_named(names, orjson.loads(plan)["nodes"]) for plan in (row["definition"], row["compiled"]) if plan)
    ]
    connected = await tx.fetch(_SQL["integrations_of_credential"], account, credential["id"])
    return plans + workflows + [ids.prefixed(ids.INTEGRATION, row["id"]) for row in connected]


def _is_named(names: set[str], nodes: Sequence[dict[str, Any]]) -> bool:
    return any(named_in(node.get("config")) in names for node in nodes)


async def _row(tx: Connection, account: str, id: str, statement: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, stored(id, "credential", ids.CREDENTIAL))
    if row is None:
        raise NotFound("credential", id)
    return row


def _check(type: CredentialType, placement: Placement, hosts: Sequence[str], value: str | None) -> None:
    if value is not None:
        with at("value"):
            check_value(type, value)
    with at("placement"):
        check_placement(type, placement)
    if len(hosts) > limits.CREDENTIAL_HOSTS_MAX:
        raise Invalid(f"at most {limits.CREDENTIAL_HOSTS_MAX} hosts", where="hosts")
    with at("hosts"):
        check_hosts(hosts)


def _no_such(named: str, where: str) -> Invalid:
    return Invalid(f"there is no credential {named[:64]!r} in this account", where=where)


def _placement(row: Row) -> Placement:
    return Placement(where=row["place"], name=row["parameter"], prefix=row["prefix"])


def _view(row: Row) -> CredentialView:
    return CredentialView(
        id=ids.prefixed(ids.CREDENTIAL, row["id"]),
        name=row["name"],
        type=row["type"],
        placement=PlacementView(row["place"], row["parameter"], row["prefix"]),
        hosts=list(row["hosts"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
