"""Accounts and keys made without the API: the first key of an account, and the demo account of `make dev`.

Rows and their outbox entries are written together, as the API does it; the relay in the API publishes them. Safe to
repeat: an account is found by its name, a given key by its digest.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast, get_args
from uuid import UUID

import msgspec

from millrace_cli.settings import KeySettings
from millrace_core import forms, ids, limits
from millrace_core.clock import SystemClock, utc_now
from millrace_core.credentials import Surface, hint, key_digest, new_key, new_ops_secret, parse_pepper
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, key_secret
from millrace_runtime.settings import read
from millrace_store import outbox, queries
from millrace_store.aggregates import Row, account_entry, key_entry
from millrace_store.pool import Connection, connect

_ACCOUNTS = queries.load("api/accounts")
_KEYS = queries.load("api/keys")
_FORMS = queries.load("api/forms")
_PEOPLE = queries.load("api/people")
DEMO_ACCOUNT = "demo"
DEMO_PLAN = "enterprise"
EVERY_SCOPE = ("*",)
DEMO_FORM = "demo"
"""The public id of the demo account's form; its page is `/forms/demo`."""
_DEMO_FIELDS: Final = ({"name": "name", "type": "text", "required": True},)


@dataclass(frozen=True, slots=True)
class Seals:
    """What it takes to store keys."""

    dsn: str
    pepper: bytes
    ring: KeyRing
    retention_days: int = limits.RETENTION_DAYS_DEFAULT
    """Of accounts that are made."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to be made. A given `text` (and `secret`) is taken as it is."""

    name: str
    surface: str
    scopes: tuple[str, ...] = EVERY_SCOPE
    test: bool = False
    text: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A key that was made, with what is shown once."""

    id: str
    key: str
    secret: str | None


def seals() -> Seals:
    """From the environment. Raises Fatal naming what is missing."""
    settings = read(KeySettings)
    return Seals(
        settings.postgres.get_secret_value(),
        parse_pepper(settings.key_pepper.get_secret_value()),
        KeyRing.parse(settings.key_ring.get_secret_value()),
        settings.retention_days,
    )


async def create_key(seals: Seals, *, account: str, plan: str, wanted: Wanted) -> Made:
    """Make a key, and the account where there is none of that name."""
    async with _transaction(seals.dsn) as connection:
        row = await ensure_account(connection, name=account, plan=plan, retention_days=seals.retention_days)
        return await _insert(connection, row["id"], wanted, seals)


async def create_account(seals: Seals, *, name: str, email: str, plan: str) -> Made:
    """Make an account, its owner and his first key. Raises Reject when there is an account of that name."""
    async with _transaction(seals.dsn) as connection:
        if await connection.fetchrow(_ACCOUNTS["find_account"], name) is not None:
            raise Reject(f"there is an account named {name!r} already")
        row = await ensure_account(connection, name=name, plan=plan, retention_days=seals.retention_days)
        owner = ids.uuid_of(ids.new_id(ids.PERSON))
        await connection.fetchrow(_PEOPLE["insert_person"], row["id"], owner, email, None, "owner", _now())
        return await _insert(connection, row["id"], Wanted("first key", "automation"), seals, person=owner)


async def ensure_demo(seals: Seals, keys: Mapping[str, Any]) -> int:
    """The demo account with the keys of dev.json and a form, which is an intake bot; how many keys were missing."""
    async with _transaction(seals.dsn) as connection:
        account = await ensure_account(
            connection, name=DEMO_ACCOUNT, plan=DEMO_PLAN, retention_days=seals.retention_days
        )
        missing = 0
        for wanted in demo_keys(keys):
            assert wanted.text is not None
            digest = key_digest(wanted.text, pepper=seals.pepper)
            if await connection.fetchrow(_KEYS["find_key"], digest) is None:
                await _insert(connection, account["id"], wanted, seals)
                missing += 1
        await _ensure_form(connection, account["id"])
        return missing


def demo_keys(keys: Mapping[str, Any]) -> list[Wanted]:
    """The keys that the `keys` object of dev.json holds. Raises Reject naming what is missing."""
    try:
        ops = keys["ops"]
        return [
            Wanted("demo ingest", "ingest", text=keys["ingest"]),
            Wanted("demo ops", "ops", text=ops["public"], secret=ops["secret"]),
            Wanted("demo intake", "intake", text=keys["intake"]),
            Wanted("demo agents", "agents", text=keys["agents"]),
            Wanted("demo agents, test", "agents", text=keys["agents_test"], test=True),
            Wanted("demo automation", "automation", text=keys["automation"]),
        ]
    except (KeyError, TypeError) as error:
        raise Reject(f"the keys file lacks {error}: it has the shape of `keys` in .millrace/dev.json") from None


async def list_keys(dsn: str, *, account: str) -> list[str]:
    """A line for each key."""
    async with _transaction(dsn) as connection:
        owner = await _account(connection, account)
        rows = await connection.fetch(_KEYS["list_keys"], owner["id"], None, 1_000)
    return [_line(row) for row in rows]


async def revoke_key(dsn: str, *, account: str, id: str) -> None:
    """End a key. Raises Reject when the account has none of that id."""
    async with _transaction(dsn) as connection:
        owner = await _account(connection, account)
        row = await connection.fetchrow(_KEYS["lock_key"], owner["id"], ids.uuid_of(id))
        if row is None:
            raise Reject(f"account {account} has no key {id}")
        if row["revoked_at"] is None:
            revoked = await connection.fetchrow(_KEYS["revoke_key"], row["account"], row["id"], _now())
            assert revoked is not None
            await outbox.append(connection, key_entry(revoked))


async def ensure_account(connection: Connection, *, name: str, plan: str, retention_days: int) -> Row:
    """The account of that name, made where there is none."""
    found = await connection.fetchrow(_ACCOUNTS["find_account"], name)
    if found is not None:
        return found
    made = await connection.fetchrow(
        _ACCOUNTS["insert_account"], ids.new_id(ids.ACCOUNT), name, plan, _now(), retention_days
    )
    if made is None:  # somebody else was first
        return await _account(connection, name)
    await outbox.append(connection, account_entry(made))
    return made


async def keep(dsn: str, *, account: str, days: int | None, most: int) -> str:
    """Set how many days an account keeps, if any are given; what it keeps, in a line. Raises Reject."""
    if days is not None and not limits.RETENTION_DAYS_MIN <= days <= most:
        raise Reject(f"an account keeps {limits.RETENTION_DAYS_MIN} to {most} days here (MILLRACE_RETENTION_DAYS_MAX)")
    async with _transaction(dsn) as connection:
        owner = await _account(connection, account)
        if days is not None:
            await connection.execute(_ACCOUNTS["keep_account"], owner["id"], days)
        row = await connection.fetchrow(_ACCOUNTS["get_account"], owner["id"])
    assert row is not None
    return f"{account} keeps {row['retention_days']} days: what was received since {row['kept_since']:%Y-%m-%d %H:%M}Z"


async def _ensure_form(connection: Connection, account: str) -> None:
    """One that asks for a name. It is made once: whoever deletes or changes it has his way."""
    fields = msgspec.json.encode(forms.parse_fields(_DEMO_FIELDS)).decode()
    id = ids.uuid_of(ids.new_id(ids.FORM))
    await connection.execute(_FORMS["ensure_form"], account, id, DEMO_FORM, "Demo", None, fields, "published", _now())


async def _insert(
    connection: Connection, account: str, wanted: Wanted, seals: Seals, *, person: UUID | None = None
) -> Made:
    if wanted.surface not in get_args(Surface):
        raise Reject(f"{wanted.surface!r} is no surface: {', '.join(get_args(Surface))}")
    surface = cast(Surface, wanted.surface)
    if wanted.test:
        account = await _acted_on(connection, account)
    id = ids.new_id(ids.KEY)
    text = wanted.text or new_key(surface, test=wanted.test)
    secret = wanted.secret or (new_ops_secret() if surface == "ops" else None)
    row = await connection.fetchrow(
        _KEYS["insert_key"],
        account,
        ids.uuid_of(id),
        wanted.name,
        surface,
        hint(text),
        key_digest(text, pepper=seals.pepper),
        list(wanted.scopes),
        wanted.test,
        None if secret is None else seals.ring.seal(secret, account=account, name=key_secret(id)),
        _now(),
        None,
        person,
    )
    assert row is not None
    await outbox.append(connection, key_entry(row))
    return Made(id, text, secret)


async def _acted_on(connection: Connection, account: str) -> str:
    """The account that the test keys of this one act on, made with the first of them."""
    made = await connection.fetchrow(_ACCOUNTS["insert_test_account"], account, ids.new_id(ids.ACCOUNT), _now())
    if made is not None:
        await outbox.append(connection, account_entry(made))
        return str(made["id"])
    found = await connection.fetchrow(_ACCOUNTS["test_account"], account)
    if found is None:
        raise Reject(f"account {account} cannot have test keys: the name of its test account is taken")
    return str(found["id"])


async def _account(connection: Connection, name: str) -> Row:
    row = await connection.fetchrow(_ACCOUNTS["find_account"], name)
    if row is None:
        raise Reject(f"there is no account named {name!r}")
    return row


@asynccontextmanager
async def _transaction(dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(dsn, name="millrace cli")
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


def _line(row: Row) -> str:
    state = "in force" if row["revoked_at"] is None else f"revoked {row['revoked_at']:%Y-%m-%d %H:%M}"
    scopes = " ".join(row["scopes"])
    return f"{ids.prefixed(ids.KEY, row['id'])}  {row['hint']:<20}  {state:<24}  {row['name']}  [{scopes}]"


def _now() -> datetime:
    return utc_now(SystemClock())
