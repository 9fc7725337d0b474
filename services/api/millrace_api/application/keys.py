"""API keys: made, shown once, listed by their hint, revoked for ever.

A key may only hand on scopes that its maker has. What is stored is the keyed hash; the text of a key exists in the
answer of its creation and nowhere else. Not here: how keys are checked (`millrace_web.api_keys`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Forbidden, Invalid, NotFound
from millrace_core import ids
from millrace_core.credentials import Surface, hint, key_digest, new_key, new_ops_secret
from millrace_core.keyring import KeyRing, key_secret
from millrace_store import queries
from millrace_store.aggregates import Row, key_entry
from millrace_store.pool import Connection
from millrace_web.scopes import SCOPES, allows

_SQL = queries.load("api/keys")


@dataclass(frozen=True, slots=True)
class KeyView:
    """What may be shown of a key at any time."""

    id: str
    name: str
    surface: str
    hint: str
    scopes: list[str]
    test: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKeyView(KeyView):
    """A key at its creation: the only time its text is known. `secret` is there for keys that sign."""

    key: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class NewKey:
    name: str
    scopes: Sequence[str]
    surface: Surface = "automation"
    test: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """What it takes to make keys."""

    pepper: bytes
    ring: KeyRing


async def create(change: Change, account: str, new: NewKey, *, granted: frozenset[str], maker: KeyMaker) -> NewKeyView:
    """`granted` are the scopes of the key that asks."""
    _check(new, granted, change.now)
    id = ids.new_id(ids.KEY)
    text = new_key(new.surface, test=new.test)
    secret = new_ops_secret() if new.surface == "ops" else None
    row = await change.tx.fetchrow(
        _SQL["insert_key"],
        account,
        ids.uuid_of(id),
        new.name,
        new.surface,
        hint(text),
        key_digest(text, pepper=maker.pepper),
        list(dict.fromkeys(new.scopes)),
        new.test,
        None if secret is None else maker.ring.seal(secret, account=account, name=key_secret(id)),
        change.now,
        new.expires_at,
    )
    assert row is not None
    await change.publish(key_entry(row))
    return NewKeyView(*_fields(row), key=text, secret=secret)


async def get(tx: Connection, account: str, id: str) -> KeyView:
    row = await tx.fetchrow(_SQL["get_key"], account, stored(id, "key", ids.KEY))
    if row is None:
        raise NotFound("key", id)
    return KeyView(*_fields(row))


async def listed(tx: Connection, account: str, *, below: UUID | None, count: int) -> list[KeyView]:
    """Newest first, revoked ones too."""
    return [KeyView(*_fields(row)) for row in await tx.fetch(_SQL["list_keys"], account, below, count)]


async def revoke(change: Change, account: str, id: str) -> KeyView:
    """End the key. Safe to repeat: the first time stands."""
    uuid = stored(id, "key", ids.KEY)
    row = await change.tx.fetchrow(_SQL["lock_key"], account, uuid)
    if row is None:
        raise NotFound("key", id)
    if row["revoked_at"] is None:
        row = await change.tx.fetchrow(_SQL["revoke_key"], account, uuid, change.now)
        assert row is not None
        await change.publish(key_entry(row))
    return KeyView(*_fields(row))


def _check(new: NewKey, granted: frozenset[str], now: datetime) -> None:
    for index, scope in enumerate(new.scopes):
        if scope not in SCOPES:
            raise Invalid(f"{scope!r} is not a scope; known are {', '.join(sorted(SCOPES))}", where=f"scopes.{index}")
        if not allows(granted, scope):
            raise Forbidden(f"This key may not give the scope {scope!r}, which it does not have itself.")
    if new.test and new.surface != "agents":
        raise Invalid("only keys of the agents surface can be test keys", where="test")
    if new.expires_at is not None and new.expires_at <= now:
        raise Invalid("must lie in the future", where="expires_at")


def _fields(row: Row) -> tuple[str, str, str, str, list[str], bool, datetime, datetime | None, datetime | None]:
    return (
        ids.prefixed(ids.KEY, row["id"]),
        row["name"],
        row["surface"],
        row["hint"],
        row["scopes"],
        row["test"],
        row["created_at"],
        row["expires_at"],
        row["revoked_at"],
    )
