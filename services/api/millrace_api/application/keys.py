"""API keys: made, shown once, listed by their hint, renamed, changed for others, revoked for ever.

A key may only hand on scopes that its maker has, and nobody's key acts for a person above him. Test keys belong to an
account of their own, made with the first of them, so that nothing crosses. What is stored is the keyed hash; the text
of a key exists in the answer of its creation and nowhere else. Not here: how keys are checked
(`millrace_web.api_keys`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from millrace_api.application.changes import Change
from millrace_api.application.notation import stored, written
from millrace_api.application.problems import Conflict, Forbidden, Invalid, NotFound
from millrace_core import ids
from millrace_core.actions import RANK
from millrace_core.credentials import Surface, hint, key_digest, new_key, new_ops_secret
from millrace_core.keyring import KeyRing, key_secret
from millrace_store import queries
from millrace_store.aggregates import Row, account_entry, key_entry
from millrace_store.pool import Connection
from millrace_web.api_keys import ApiKey
from millrace_web.scopes import SCOPES, allows

_SQL = queries.load("api/keys")
_ACCOUNTS = queries.load("api/accounts")
_PEOPLE = queries.load("api/people")
GRACE_S = 24 * 3_600
GRACE_S_MAX = 30 * 24 * 3_600


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
    last_used_at: datetime | None
    """For a request to the API, within a minute; requests to the gateway are not told here."""
    old_until: datetime | None
    """Until then the key before the last rotation is good too."""
    person: str | None


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
    person: str | None = None


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """What it takes to make keys."""

    pepper: bytes
    ring: KeyRing


async def create(change: Change, account: str, new: NewKey, *, by: ApiKey, maker: KeyMaker) -> NewKeyView:
    """`by` is the key that asks."""
    _check(new, by, change.now)
    _check_owner(new.person, by)
    person = None if new.person is None else await _person(change.tx, account, new.person, by)
    return await insert(change, await _acted_on(change, account) if new.test else account, new, person, maker=maker)


async def insert(change: Change, account: str, new: NewKey, person: UUID | None, *, maker: KeyMaker) -> NewKeyView:
    """Make it; whether it may be made has been judged."""
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
        _sealed(maker, secret, account, id),
        change.now,
        new.expires_at,
        person,
    )
    assert row is not None
    await change.publish(key_entry(row))
    return NewKeyView(**_fields(row), key=text, secret=secret)


async def get(tx: Connection, account: str, id: str) -> KeyView:
    row = await tx.fetchrow(_SQL["get_key"], account, stored(id, "key", ids.KEY))
    if row is None:
        raise NotFound("key", id)
    return KeyView(**_fields(row))


async def listed(tx: Connection, account: str, *, below: UUID | None, count: int) -> list[KeyView]:
    """Newest first, revoked ones too."""
    return [KeyView(**_fields(row)) for row in await tx.fetch(_SQL["list_keys"], account, below, count)]


async def rename(change: Change, account: str, id: str, name: str, *, by: ApiKey) -> KeyView:
    row = await _locked(change, account, id)
    _check_key(row, by)
    await change.tx.execute(_SQL["rename_key"], row["account"], row["id"], name)
    return KeyView(**_fields(await _published(change, account, id)))


async def rotate(change: Change, account: str, id: str, *, grace_s: int, by: ApiKey, maker: KeyMaker) -> NewKeyView:
    """A new text (and secret) for the key; the one before is good for `grace_s` more. Raises Conflict when it is
    revoked, Forbidden when the key that asks may not do all that this one may."""
    row = await _locked(change, account, id)
    if row["revoked_at"] is not None:
        raise Conflict("This key is revoked: make a new one.")
    _check_key(row, by)
    _check_granted(row["scopes"], by)
    text = new_key(row["surface"], test=row["test"])
    secret = None if row["sealed_secret"] is None else new_ops_secret()
    await change.tx.execute(
        _SQL["rotate_key"],
        row["account"],
        row["id"],
        key_digest(text, pepper=maker.pepper),
        hint(text),
        _sealed(maker, secret, row["account"], id),
        change.now + timedelta(seconds=grace_s),
    )
    return NewKeyView(**_fields(await _published(change, account, id)), key=text, secret=secret)


async def revoke(change: Change, account: str, id: str, *, by: ApiKey) -> KeyView:
    """End the key. Safe to repeat: the first time stands."""
    row = await _locked(change, account, id)
    _check_key(row, by)
    if row["revoked_at"] is None:
        await end(change, row)
        row = await _locked(change, account, id)
    return KeyView(**_fields(row))


async def end(change: Change, row: Row) -> None:
    """Revoke the key behind this locked row."""
    ended = await change.tx.fetchrow(_SQL["revoke_key"], row["account"], row["id"], change.now)
    assert ended is not None
    await change.publish(key_entry(ended))


async def used(tx: Connection, seen: Mapping[tuple[str, str], datetime]) -> None:
    """Keep when these keys, by account and id, were last seen. Safe to repeat."""
    accounts, keys = [account for account, _ in seen], [ids.uuid_of(id) for _, id in seen]
    await tx.execute(_SQL["all_used"], accounts, keys, list(seen.values()))


async def _locked(change: Change, account: str, id: str) -> Row:
    row = await change.tx.fetchrow(_SQL["lock_key"], account, stored(id, "key", ids.KEY))
    if row is None:
        raise NotFound("key", id)
    return row


async def _published(change: Change, account: str, id: str) -> Row:
    """The row as it was just changed, on its way."""
    row = await _locked(change, account, id)
    await change.publish(key_entry(row))
    return row


async def _acted_on(change: Change, account: str) -> str:
    """The account that this one's test keys act on."""
    made = await change.tx.fetchrow(_ACCOUNTS["insert_test_account"], account, ids.new_id(ids.ACCOUNT), change.now)
    if made is not None:
        await change.publish(account_entry(made))
        return str(made["id"])
    found = await change.tx.fetchrow(_ACCOUNTS["test_account"], account)
    if found is None:
        raise Conflict("This account acts on a test world already, or its name is taken: ask for another.")
    return str(found["id"])


async def _person(tx: Connection, account: str, id: str, by: ApiKey) -> UUID:
    row = await tx.fetchrow(_PEOPLE["get_person"], account, stored(id, "person", ids.PERSON))
    if row is None:
        raise Invalid(f"there is no person {id!r}", where="person")
    _check_rank(row["role"], by)
    uuid: UUID = row["id"]
    return uuid


def _sealed(maker: KeyMaker, secret: str | None, account: str, id: str) -> str | None:
    return None if secret is None else maker.ring.seal(secret, account=account, name=key_secret(id))


def _check(new: NewKey, by: ApiKey, now: datetime) -> None:
    for index, scope in enumerate(new.scopes):
        if scope not in SCOPES:
            raise Invalid(f"{scope!r} is not a scope; known are {', '.join(sorted(SCOPES))}", where=f"scopes.{index}")
    _check_granted(new.scopes, by)
    if new.test and new.surface != "agents":
        raise Invalid("only keys of the agents surface can be test keys", where="test")
    if new.test and new.person is not None:
        raise Invalid("a test key is nobody's: leave it out", where="person")
    if new.expires_at is not None and new.expires_at <= now:
        raise Invalid("must lie in the future", where="expires_at")


def _check_granted(wanted: Sequence[str], by: ApiKey) -> None:
    """What the key's own scopes include. Of people's keys the role bounds it too, whenever they are used."""
    for scope in wanted:
        if not allows(by.scopes, scope):
            raise Forbidden(f"This key may not give the scope {scope!r}, which it does not have itself.")


def _check_owner(person: str | None, by: ApiKey) -> None:
    """A key of nobody may what an owner may in actions: only an owner's, or another such key, makes or changes one."""
    if person is None and by.role not in {None, "owner"}:
        raise Forbidden(f"A key of one who is {by.role} may only make and change keys of people: name a person.")


def _check_key(row: Row, by: ApiKey) -> None:
    _check_owner(row["person"], by)
    if row["role"] is not None:
        _check_rank(row["role"], by)


def _check_rank(role: str, by: ApiKey) -> None:
    """A person's key does nothing for people above him."""
    if by.role is not None and RANK[role] > RANK[by.role]:
        raise Forbidden(f"A key of one who is {by.role} cannot act for one who is {role}.")


def _fields(row: Row) -> dict[str, Any]:
    return {
        "id": ids.prefixed(ids.KEY, row["id"]),
        "person": written(ids.PERSON, row["person"]),
        **{
            name: row[name]
            for name in (
                *("name", "surface", "hint", "scopes", "test", "created_at", "expires_at", "revoked_at"),
                *("last_used_at", "old_until"),
            )
        },
    }
