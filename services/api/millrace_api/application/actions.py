"""The registry of action contracts: registered, versioned, signed, and looked up before every call.

A contract may be signed by its author with the secret of one of the account's signing keys (`signature`, `signed_by`);
that key must be in force and may manage actions, when the contract is registered and before each call. Without a
signature a contract is trusted because the call that brought it was. The registry seals each with the action's own
secret, which also signs the requests to its endpoint and is shown once. Not here: calls (`action_calls`).
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from millrace_api.application.changes import Change
from millrace_api.application.keys import KeyMaker
from millrace_api.application.notation import stored
from millrace_api.application.problems import BeingChanged, Conflict, Invalid, NotFound, at
from millrace_core import actions as contracts
from millrace_core import ids, limits
from millrace_core.actions import Contract
from millrace_core.credentials import key_digest, new_action_secret
from millrace_core.egress import Network, check_url
from millrace_core.errors import Reject
from millrace_core.keyring import action_secret, key_secret
from millrace_store import queries
from millrace_store.aggregates import Row, action_entry
from millrace_store.pool import Connection
from millrace_web.scopes import MANAGE_ACTIONS, ROLES, allows

_SQL = queries.load("api/actions")


@dataclass(frozen=True, slots=True)
class ActionView:
    """A registered contract. `digest` is the SHA-256 of its RFC 8785 form."""

    id: str
    version: int
    contract: dict[str, Any]
    digest: str
    signature: str | None
    signed_by: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewActionView(ActionView):
    """With the secret that signs its requests: when it is first registered and after a rotation, never again."""

    secret: str | None


@dataclass(frozen=True, slots=True)
class VersionView:
    """A contract as it was registered."""

    version: int
    contract: dict[str, Any]
    digest: str
    signature: str | None
    signed_by: str | None
    registered_by: str
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Registered:
    """A contract that may be run: its signatures held just now."""

    id: str
    version: int
    contract: Contract
    digest: str
    position: int
    """Where it stands on `control`."""


async def register(
    change: Change,
    account: str,
    document: Mapping[str, Any],
    *,
    registered_by: str,
    maker: KeyMaker,
    egress: Sequence[Network],
) -> NewActionView:
    """A new action, or the next version of the one with this id. Its secret stays the same through its versions."""
    contract, content = _read(document, egress)
    signature, signed_by = await _signature(change.tx, account, document, content, maker, change.now)
    current = await change.tx.fetchrow(_SQL["lock_action"], account, contract.id)
    digest = contracts.digest(content)
    if current is None:
        if await change.tx.fetchval(_SQL["count_actions"], account) >= limits.ACTIONS_MAX:
            raise Conflict(f"There are {limits.ACTIONS_MAX} actions, the most there can be: delete some.")
        id, secret = ids.new_id(ids.ACTION), new_action_secret()
        sealed = maker.ring.seal(secret, account=account, name=action_secret(id))
        row = await change.tx.fetchrow(
            _SQL["insert_action"],
            account,
            ids.uuid_of(id),
            contract.id,
            content,
            digest,
            signature,
            signed_by,
            sealed,
            contracts.sign(secret, content),
            change.now,
        )
    else:
        secret = None
        row = await change.tx.fetchrow(
            _SQL["update_action"],
            account,
            current["id"],
            content,
            digest,
            signature,
            signed_by,
            contracts.sign(_secret(current, account, maker), content),
            change.now,
        )
    if row is None:
        raise Conflict(f"{contract.id} is being registered by another call: try again shortly.")
    await change.tx.execute(
        _SQL["insert_version"],
        account,
        row["id"],
        row["version"],
        content,
        digest,
        signature,
        signed_by,
        registered_by,
        change.now,
    )
    await change.publish(action_entry(row))
    return NewActionView(**_fields(row), secret=secret)


async def rotate_secret(change: Change, account: str, name: str, *, maker: KeyMaker) -> NewActionView:
    """Sign with a new secret from now on, and with it alone."""
    current = await _lock(change, account, name)
    id, secret = ids.prefixed(ids.ACTION, current["id"]), new_action_secret()
    row = await change.tx.fetchrow(
        _SQL["rotate_action"],
        account,
        current["id"],
        maker.ring.seal(secret, account=account, name=action_secret(id)),
        contracts.sign(secret, current["contract"]),
        change.now,
    )
    assert row is not None
    await change.publish(action_entry(row))
    return NewActionView(**_fields(row), secret=secret)


async def delete(change: Change, account: str, name: str) -> None:
    """Take it out of the registry: nothing can run it any more, not even what was confirmed."""
    current = await _lock(change, account, name)
    row = await change.tx.fetchrow(_SQL["delete_action"], account, current["id"], change.now)
    assert row is not None
    await change.publish(action_entry(row))


async def get(tx: Connection, account: str, name: str) -> ActionView:
    return ActionView(**_fields(await _row(tx, account, name, "get_action")))


async def listed(tx: Connection, account: str, *, behind: str | None, count: int) -> list[ActionView]:
    """By id."""
    return [ActionView(**_fields(row)) for row in await tx.fetch(_SQL["list_actions"], account, behind, count)]


async def versions(tx: Connection, account: str, name: str, *, below: int | None, count: int) -> list[VersionView]:
    """Newest first."""
    current = await _row(tx, account, name, "get_action")
    rows = await tx.fetch(_SQL["list_versions"], account, current["id"], below, count)
    return [
        VersionView(
            version=row["version"],
            contract=orjson.loads(row["contract"]),
            digest=row["digest"],
            signature=row["signature"],
            signed_by=None if row["signed_by"] is None else ids.prefixed(ids.KEY, row["signed_by"]),
            registered_by=row["registered_by"],
            registered_at=row["registered_at"],
        )
        for row in rows
    ]


async def runnable(tx: Connection, account: str, name: str, *, maker: KeyMaker, now: datetime) -> Registered:
    """The contract of this id, whose seal and signature hold. Raises NotFound, Conflict."""
    row = await _row(tx, account, name, "action_to_run")
    content = bytes(row["contract"])
    try:
        contracts.check_signature(_secret(row, account, maker), content, row["seal"])
        if row["signature"] is not None:
            key = await tx.fetchrow(_SQL["signing_key"], account, row["signed_by"], None, now)
            _check_vouched(key, account, maker, content, row["signature"])
        contract = contracts.parse(orjson.loads(content))
    except Reject as error:
        raise Conflict(f"The contract of {name} cannot be trusted any more: {error}. Register it again.") from None
    if row["published_position"] is None:
        raise BeingChanged(f"The contract of {name} is being changed: try again shortly.")
    return Registered(
        id=ids.prefixed(ids.ACTION, row["id"]),
        version=row["version"],
        contract=contract,
        digest=row["digest"],
        position=row["published_position"],
    )


async def every(tx: Connection, account: str) -> list[Contract]:
    """All contracts of the account: what a prompt can come to. One that does not hold any more is left out: it cannot
    be run either."""
    found = []
    for row in await tx.fetch(_SQL["list_actions"], account, None, limits.ACTIONS_MAX):
        with contextlib.suppress(Reject):
            found.append(contracts.parse(orjson.loads(row["contract"])))
    return found


def _read(document: Mapping[str, Any], egress: Sequence[Network]) -> tuple[Contract, bytes]:
    with at("contract"):
        contract = contracts.parse(document)
        content = contracts.canonical(document)
    with at("contract.endpoint"):
        check_url(contract.endpoint, egress)
    return contract, content


async def _signature(
    tx: Connection, account: str, document: Mapping[str, Any], content: bytes, maker: KeyMaker, now: datetime
) -> tuple[str | None, Any]:
    signature, signed_by = document.get("signature"), document.get("signed_by")
    if signature is None and signed_by is None:
        return None, None
    if not isinstance(signature, str) or not isinstance(signed_by, str):
        raise Invalid("give both signature and signed_by, or neither", where="contract.signature")
    id = None
    if signed_by.startswith(f"{ids.KEY}_"):
        id = stored(signed_by, "key", ids.KEY)
    digest = None if id is not None else key_digest(signed_by, pepper=maker.pepper)
    key = await tx.fetchrow(_SQL["signing_key"], account, id, digest, now)
    with at("contract.signature"):
        _check_vouched(key, account, maker, content, signature)
    assert key is not None
    return signature, key["id"]


def _check_vouched(key: Row | None, account: str, maker: KeyMaker, content: bytes, signature: str) -> None:
    """Raises Reject unless a key that may vouch for contracts signed it: with its secret, or with the one before while
    that is good too."""
    if key is None or key["sealed_secret"] is None:
        raise Reject("signed_by names no signing key of this account that is in force")
    granted = frozenset(key["scopes"]) if key["role"] is None else ROLES[key["role"]]
    if not (allows(frozenset(key["scopes"]), MANAGE_ACTIONS) and allows(granted, MANAGE_ACTIONS)):
        raise Reject(f"the key that signed it lacks the scope {MANAGE_ACTIONS!r}")
    name = key_secret(ids.prefixed(ids.KEY, key["id"]))
    if key["old_sealed_secret"] is not None:
        with contextlib.suppress(Reject):
            old = maker.ring.open(key["old_sealed_secret"], account=account, name=name)
            contracts.check_signature(old, content, signature)
            return
    contracts.check_signature(maker.ring.open(key["sealed_secret"], account=account, name=name), content, signature)


def _secret(row: Row, account: str, maker: KeyMaker) -> str:
    name = action_secret(ids.prefixed(ids.ACTION, row["id"]))
    return maker.ring.open(row["sealed_secret"], account=account, name=name)


async def _lock(change: Change, account: str, name: str) -> Row:
    return await _row(change.tx, account, name, "lock_action")


async def _row(tx: Connection, account: str, name: str, statement: str) -> Row:
    row = await tx.fetchrow(_SQL[statement], account, name) if contracts.is_name(name) else None
    if row is None:
        raise NotFound("action", name[: limits.ACTION_NAME_CHARS_MAX])
    return row


def _fields(row: Row) -> Mapping[str, Any]:
    return {
        "id": row["name"],
        "version": row["version"],
        "contract": orjson.loads(row["contract"]),
        "digest": row["digest"],
        "signature": row["signature"],
        "signed_by": None if row["signed_by"] is None else ids.prefixed(ids.KEY, row["signed_by"]),
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
