"""An account's connections to other platforms: what each is told, how it fares, and what its webhooks become.

A connection is to one connector (`connecting`), with its own configuration and secrets, which are sealed under the key
ring and never shown. What the connector says of itself is asked when the connection is made or changed, outside any
transaction. What it wants to hear is one webhook endpoint, subscribed at the priority of connectors. A webhook of the
platform comes in under the connection's public id; its events are on the log before it is answered.
"""

import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from millrace_api.application import actions, subscriptions, webhooks
from millrace_api.application.actions import NewActionView
from millrace_api.application.changes import Change
from millrace_api.application.connecting import SIGNING_SECRET, Connecting, Connection
from millrace_api.application.keys import KeyMaker
from millrace_api.application.notation import stored, written
from millrace_api.application.problems import Conflict, Invalid, NotFound, Unavailable, at
from millrace_core import actions as contracts
from millrace_core import connectors, event_names, ids, limits
from millrace_core.connectors import REMOTE, Handled, Inbound, Refusal
from millrace_core.credentials import new_ops_secret
from millrace_core.egress import Network, check_url
from millrace_core.errors import Reject
from millrace_core.event import make_event, to_output
from millrace_core.keyring import KeyRing, connection_secret
from millrace_core.record import Output
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection as Tx

_SQL = queries.load("api/connections")
SURFACE = "connector"
Status = Literal["healthy", "degraded", "failing", "disabled", "missing"]
Outcome = Literal["handled", "refused", "failed", "timed_out", "busy"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Webhooks received; of those refused (unproven or unreadable), failed and timed out; and the events they made."""

    received: int
    refused: int
    failed: int
    timed_out: int
    events: int


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """`webhook_path` is what the platform posts to, behind this server's address. `declared` is what the connector last
    said of itself, `secrets` the names of those that are set."""

    id: str
    connector: str
    name: str
    status: Status
    enabled: bool
    url: str | None
    webhook_path: str
    config: dict[str, Any]
    secrets: list[str]
    counts: Counts
    last_received_at: datetime | None
    last_event_at: datetime | None
    last_error_at: datetime | None
    last_error: str | None
    declared: dict[str, Any]
    declared_at: datetime
    mirror_webhook: str | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewConnectionView(ConnectionView):
    """With the secret that signs the calls to a remote connector: at its creation, never again."""

    signing_secret: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connection as its owner wants it."""

    connector: str
    name: str
    config: Mapping[str, Any]
    secrets: Mapping[str, str]
    url: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Here:
    """What it takes to make and ask connections."""

    connecting: Connecting
    ring: KeyRing
    egress: Sequence[Network]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A connection that was checked, and what its connector says of itself. `new_secret` was made just now."""

    id: str
    wanted: Wanted
    declared: Mapping[str, Any]
    new_secret: str | None = None
    version: int = 0


async def prepare(here: Here, account: str, wanted: Wanted, *, now: datetime) -> Prepared:
    """Check a new connection and ask its connector. Outside a transaction: a connector may take its time."""
    id = ids.new_id(ids.CONNECTION)
    made = None
    if wanted.connector == REMOTE and SIGNING_SECRET not in wanted.secrets:
        made = new_ops_secret()
        wanted = replace(wanted, secrets={**wanted.secrets, SIGNING_SECRET: made})
    _check(here, wanted)
    return Prepared(id, wanted, await _declared(here, account, id, wanted, now), made)


async def create(change: Change, here: Here, account: str, prepared: Prepared) -> NewConnectionView:
    if await change.tx.fetchval(_SQL["count_connections"], account) >= limits.CONNECTIONS_MAX:
        raise Conflict(f"An account has at most {limits.CONNECTIONS_MAX} connections: delete one that is not needed.")
    endpoint = await _mirror(change, here, account, prepared, None)
    row = await change.tx.fetchrow(
        _SQL["insert_connection"],
        account,
        ids.uuid_of(prepared.id),
        f"cn_{randomness.token_hex(16)}",
        prepared.wanted.connector,
        *_stored(here, account, prepared, endpoint, change.now),
    )
    assert row is not None
    return NewConnectionView(**_fields(here, row, account), signing_secret=prepared.new_secret)


async def looked_up(tx: Tx, account: str, id: str) -> Row:
    """The connection as it stands, for `prepare_change`, which needs no transaction."""
    return await _row(tx, account, id, "get_connection")


async def prepare_change(here: Here, account: str, row: Row, named: Mapping[str, Any], *, now: datetime) -> Prepared:
    """Check a change of the members named (those of Wanted; a secret that is null is taken away), and ask the
    connector."""
    id = ids.prefixed(ids.CONNECTION, row["id"])
    current = _wanted(here, account, row)
    given = dict(named)
    if "secrets" in given:
        merged = {**current.secrets, **given["secrets"]}
        given["secrets"] = {name: value for name, value in merged.items() if value is not None}
    wanted = replace(current, **given)
    _check(here, wanted)
    return Prepared(id, wanted, await _declared(here, account, id, wanted, now), version=row["version"])


async def update(change: Change, here: Here, account: str, prepared: Prepared) -> ConnectionView:
    """Make the change that was prepared."""
    row = await _row(change.tx, account, prepared.id, "lock_connection")
    if row["version"] != prepared.version:
        raise Conflict("The connection was changed by another request just now: read it and try again.")
    endpoint = await _mirror(change, here, account, prepared, row)
    made = await change.tx.fetchrow(
        _SQL["update_connection"],
        account,
        row["id"],
        *_stored(here, account, prepared, endpoint, change.now),
    )
    assert made is not None
    return ConnectionView(**_fields(here, made, account))


async def delete(change: Change, account: str, id: str) -> None:
    """With its webhook endpoint. Raises Conflict while others point at that."""
    row = await _row(change.tx, account, id, "lock_connection")
    await change.tx.execute(_SQL["delete_connection"], account, row["id"], change.now)
    if row["endpoint"] is not None:
        await _remove_endpoint(change, account, row["endpoint"])


async def get(tx: Tx, here: Here, account: str, id: str) -> ConnectionView:
    return ConnectionView(**_fields(here, await _row(tx, account, id, "get_connection"), account))


async def listed(tx: Tx, here: Here, account: str, *, below: UUID | None, count: int) -> list[ConnectionView]:
    """Newest first."""
    rows = await tx.fetch(_SQL["list_connections"], account, below, count)
    return [ConnectionView(**_fields(here, row, account)) for row in rows]


async def register_actions(
    change: Change, account: str, id: str, *, registered_by: str, maker: KeyMaker, egress: Sequence[Network]
) -> list[NewActionView]:
    """Register what the connector declared last, where it is not registered just so. A declaration alone allows
    nothing: whoever may manage actions does this."""
    row = await _row(change.tx, account, id, "lock_connection")
    made = []
    for index, document in enumerate(orjson.loads(row["declared"]).get("register_actions", [])):
        with at(f"register_actions.{index}"):
            name, digest = contracts.parse(document).id, contracts.digest(contracts.canonical(document))
        if not await _is_registered(change.tx, account, name, digest):
            registered = await actions.register(
                change, account, document, registered_by=registered_by, maker=maker, egress=egress
            )
            made.append(registered)
    return made


async def _is_registered(tx: Tx, account: str, name: str, digest: str) -> bool:
    try:
        return (await actions.get(tx, account, name)).digest == digest
    except NotFound:
        return False


# ── webhooks that come in ───────────────────────────────────────────────────────────────────────────────────────────
async def find(tx: Tx, here: Here, public_id: str) -> Connection:
    """The connection that is posted to. Raises NotFound, for one that is switched off too."""
    row = await tx.fetchrow(_SQL["find_connection"], public_id)
    if row is None or not row["enabled"]:
        raise NotFound("connection", public_id[:64])
    account, id = row["account"], ids.prefixed(ids.CONNECTION, row["id"])
    try:
        return _asked(account, id, _wanted(here, account, row))
    except Reject:
        raise Unavailable("The secrets of this connection cannot be opened right now.") from None


async def handle(here: Here, connection: Connection, inbound: Inbound, *, now_ms: int) -> Handled | Refusal:
    """What the webhook means. Raises NotAnswered."""
    return await here.connecting.handle(connection, inbound, now_ms=now_ms)


def outputs(connection: Connection, handled: Handled, *, now_ms: int) -> list[Output]:
    """The records of its events, in order."""
    return [
        to_output(make_event(posted, account=connection.account, now_ms=now_ms), surface=SURFACE)
        for posted in handled.events
    ]


async def count(
    tx: Tx, connection: Connection, outcome: Outcome, *, events: int, error: str | None, now: datetime
) -> None:
    """Keep what came of one webhook."""
    id = ids.uuid_of(connection.id)
    told = None if error is None else error.replace("\x00", "")[: limits.CONNECTOR_ERROR_CHARS_MAX]
    await tx.execute(_SQL["count_call"], connection.account, id, now, outcome, events, told)


# ── the parts ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _check(here: Here, wanted: Wanted) -> None:
    if not here.connecting.has(wanted.connector):
        raise Invalid(
            f"there is no connector {wanted.connector[:64]!r}: see /v1/connectors/available", where="connector"
        )
    if (wanted.url is not None) != (wanted.connector == REMOTE):
        raise Invalid("a remote connector has a url, and no other has", where="url")
    if wanted.url is not None:
        with at("url"):
            check_url(wanted.url, here.egress)
    with at("config"):
        connectors.check_config(wanted.config)
    if len(wanted.secrets) > limits.CONNECTOR_SECRETS_MAX:
        raise Invalid(f"at most {limits.CONNECTOR_SECRETS_MAX} secrets", where="secrets")
    for name, value in wanted.secrets.items():
        most = limits.CONNECTOR_SECRET_CHARS_MAX
        if not 1 <= len(value) <= most or not connectors.is_connector_name(name):
            raise Invalid(f"a name of small letters, digits and '_', and 1 to {most} characters", where="secrets")
    if wanted.connector == REMOTE and len(wanted.secrets[SIGNING_SECRET]) < webhooks.SECRET_BYTES_MIN:
        raise Invalid(f"at least {webhooks.SECRET_BYTES_MIN} characters", where=f"secrets.{SIGNING_SECRET}")


async def _declared(here: Here, account: str, id: str, wanted: Wanted, now: datetime) -> Mapping[str, Any]:
    """What the connector says; of what it wants to hear, only what can be done."""
    now_ms = round(now.timestamp() * 1000)
    found = await here.connecting.declare(_asked(account, id, wanted), now_ms=now_ms)
    try:
        _mirrored(found, wanted, here.egress)
    except Reject as error:
        found = {name: value for name, value in found.items() if name != "subscribers"}
        found["errors"] = {**found["errors"], "subscribers": str(error)}
    return found


def _mirrored(declared: Mapping[str, Any], wanted: Wanted, egress: Sequence[Network]) -> tuple[str, list[str]] | None:
    """Where events go that the connector wants to hear, and which; None = it wants none. Raises Reject."""
    wished = [connectors.subscriber(one) for one in declared.get("subscribers", [])]
    if not wished or not wanted.enabled:
        return None
    own = None if wanted.url is None else f"{wanted.url.rstrip('/')}/events"
    urls = {one.url or own for one in wished}
    url = urls.pop()
    if urls or url is None:
        raise Reject("all of a connector's subscribers must have one and the same url")
    check_url(url, egress)
    events = {event_names.pattern_of(event): event for one in wished for event in one.events}
    if len(events) > webhooks.EVENTS_MAX:
        raise Reject(f"a connector may subscribe to at most {webhooks.EVENTS_MAX} events")
    return url, list(events.values())


async def _mirror(change: Change, here: Here, account: str, prepared: Prepared, before: Row | None) -> UUID | None:
    """The endpoint that the connector's subscribers are now; the one before is left as it is, or goes."""
    wanted = _mirrored(prepared.declared, prepared.wanted, here.egress)
    if before is not None and before["endpoint"] is not None:
        current = _wanted(here, account, before)
        if _mirrored(orjson.loads(before["declared"]), current, here.egress) == wanted:
            endpoint = UUID(str(before["endpoint"]))
            if await _kept(change, here, account, endpoint, current, prepared.wanted):
                return endpoint
        else:
            await _remove_endpoint(change, account, before["endpoint"])
    if wanted is None:
        return None
    url, events = wanted
    description, priority = f"Connection {prepared.wanted.name}"[:200], subscriptions.PRIORITY["connector"]
    made = await webhooks.create(
        change,
        account,
        webhooks.Wanted(url, events, description, style="ops", priority=priority),
        secret=prepared.wanted.secrets.get(SIGNING_SECRET),
        ring=here.ring,
        egress=here.egress,
    )
    return ids.uuid_of(made.id)


async def _kept(change: Change, here: Here, account: str, endpoint: UUID, before: Wanted, after: Wanted) -> bool:
    """Sign what goes there with the secret that is now the connection's. False when its owner has deleted it."""
    id, secret = ids.prefixed(ids.ENDPOINT, endpoint), after.secrets.get(SIGNING_SECRET)
    try:
        if secret is None or secret == before.secrets.get(SIGNING_SECRET):
            await webhooks.get(change.tx, account, id)
        else:
            await webhooks.rotate_secret(change, account, id, secret=secret, grace_s=0, ring=here.ring)
    except NotFound:
        return False
    return True


async def _remove_endpoint(change: Change, account: str, endpoint: UUID) -> None:
    try:
        await webhooks.delete(change, account, ids.prefixed(ids.ENDPOINT, endpoint))
    except NotFound:
        return  # its owner has deleted it


def _stored(
    here: Here, account: str, prepared: Prepared, endpoint: UUID | None, now: datetime
) -> tuple[str, str | None, str, str, bool, str, datetime, UUID | None]:
    wanted = prepared.wanted
    sealed = here.ring.seal(
        orjson.dumps(dict(wanted.secrets)).decode(), account=account, name=connection_secret(prepared.id)
    )
    config, declared = orjson.dumps(wanted.config).decode(), orjson.dumps(prepared.declared).decode()
    return wanted.name, wanted.url, config, sealed, wanted.enabled, declared, now, endpoint


def _wanted(here: Here, account: str, row: Row) -> Wanted:
    name = connection_secret(ids.prefixed(ids.CONNECTION, row["id"]))
    opened = here.ring.open(row["sealed_secrets"], account=account, name=name)
    config, secrets = orjson.loads(row["config"]), orjson.loads(opened)
    return Wanted(row["connector"], row["name"], config, secrets, row["url"], row["enabled"])


def _secret_names(here: Here, account: str, row: Row) -> list[str]:
    """None where the key that sealed them has left the ring: the connection then says so when it is used."""
    try:
        return sorted(_wanted(here, account, row).secrets)
    except Reject:
        return []


def _asked(account: str, id: str, wanted: Wanted) -> Connection:
    return Connection(account, id, wanted.connector, wanted.url, wanted.config, wanted.secrets)


async def _row(tx: Tx, account: str, id: str, statement: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, stored(id, "connection", ids.CONNECTION))
    if row is None:
        raise NotFound("connection", id)
    found: Row = row
    return found


def _status(here: Here, row: Row, declared: Mapping[str, Any]) -> Status:
    if not row["enabled"]:
        return "disabled"
    if not here.connecting.has(row["connector"]):
        return "missing"
    if row["failures_in_row"] >= limits.CONNECTOR_FAILING_AFTER:
        return "failing"
    return "degraded" if row["failures_in_row"] or declared.get("errors") else "healthy"


def _fields(here: Here, row: Row, account: str) -> Mapping[str, Any]:
    declared = orjson.loads(row["declared"])
    same = ("connector", "name", "enabled", "url", "last_received_at", "last_event_at", "last_error_at", "last_error",
            "declared_at", "version", "created_at", "updated_at")  # fmt: skip
    return {name: row[name] for name in same} | {
        "id": ids.prefixed(ids.CONNECTION, row["id"]),
        "status": _status(here, row, declared),
        "webhook_path": f"/connectors/{row['public_id']}/webhook",
        "config": orjson.loads(row["config"]),
        "secrets": _secret_names(here, account, row),
        "counts": Counts(row["received"], row["refused"], row["failed"], row["timed_out"], row["events"]),
        "declared": declared,
        "mirror_webhook": written(ids.ENDPOINT, row["endpoint"]),
    }
