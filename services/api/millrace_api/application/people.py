"""The people of an account: who they are, and the role that bounds what their keys may.

Each account has an owner, always: the last one cannot leave or become less. A change of role holds for the person's
keys at once, and they end with him. Not here: what a role may (`millrace_web.scopes.ROLES`), keys (`keys`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from millrace_api.application import keys
from millrace_api.application.changes import Change
from millrace_api.application.notation import stored
from millrace_api.application.problems import Conflict, Forbidden, Invalid, NotFound
from millrace_core import ids
from millrace_core.actions import RANK, Role
from millrace_core.forms import is_email
from millrace_store import queries
from millrace_store.aggregates import Row, key_entry
from millrace_store.pool import Connection
from millrace_web.api_keys import ApiKey

_SQL = queries.load("api/people")
_KEYS = queries.load("api/keys")
EMAIL_CHARS_MAX = 254


@dataclass(frozen=True, slots=True)
class PersonView:
    id: str
    email: str
    name: str | None
    role: Role
    created_at: datetime
    updated_at: datetime


async def add(
    change: Change, account: str, *, email: str, name: str | None, role: Role, by: ApiKey | None, id: str
) -> PersonView:
    """`by` is the key that asks; None = the account is just being made. Raises Conflict when the address is there."""
    if len(email) > EMAIL_CHARS_MAX or not is_email(email):
        raise Invalid("must be an email address", where="email")
    _check_rank(role, by)
    row = await change.tx.fetchrow(_SQL["insert_person"], account, ids.uuid_of(id), email, name, role, change.now)
    if row is None:
        raise Conflict("Somebody with this email address is in the account already.")
    return _view(row)


async def get(tx: Connection, account: str, id: str) -> PersonView:
    row = await tx.fetchrow(_SQL["get_person"], account, stored(id, "person", ids.PERSON))
    if row is None:
        raise NotFound("person", id)
    return _view(row)


async def listed(tx: Connection, account: str, *, below: UUID | None, count: int) -> list[PersonView]:
    """Newest first."""
    return [_view(row) for row in await tx.fetch(_SQL["list_people"], account, below, count)]


async def update(change: Change, account: str, id: str, named: dict[str, Any], *, by: ApiKey) -> PersonView:
    """Change `name` and `role`, where named. The person's keys have the new role at once."""
    row = await _locked(change, account, id, by)
    role = named.get("role", row["role"])
    if role != row["role"]:
        _check_rank(role, by)
        await _check_last_owner(change, account, row)
    name = named.get("name", row["name"])
    changed = await change.tx.fetchrow(_SQL["update_person"], account, row["id"], name, role, change.now)
    assert changed is not None
    if role != row["role"]:
        for key in await change.tx.fetch(_KEYS["keys_of_person"], account, row["id"]):
            await change.tx.execute(_KEYS["next_version"], account, key["id"])
        for key in await change.tx.fetch(_KEYS["keys_of_person"], account, row["id"]):
            await change.publish(key_entry(key))
    return _view(changed)


async def remove(change: Change, account: str, id: str, *, by: ApiKey) -> None:
    """The person leaves, and all his keys end."""
    row = await _locked(change, account, id, by)
    await _check_last_owner(change, account, row)
    for key in await change.tx.fetch(_KEYS["keys_of_person"], account, row["id"]):
        await keys.end(change, key)
    await change.tx.execute(_SQL["remove_person"], account, row["id"], change.now)


async def _locked(change: Change, account: str, id: str, by: ApiKey) -> Row:
    uuid = stored(id, "person", ids.PERSON)
    await change.tx.fetch(_SQL["lock_owners"], account)
    row = await change.tx.fetchrow(_SQL["lock_person"], account, uuid)
    if row is None:
        raise NotFound("person", id)
    _check_rank(row["role"], by)
    return row


async def _check_last_owner(change: Change, account: str, row: Row) -> None:
    owners = await change.tx.fetch(_SQL["lock_owners"], account)
    if [owner["id"] for owner in owners] == [row["id"]]:
        raise Conflict("This is the account's only owner: make somebody else an owner first.")


def _check_rank(role: str, by: ApiKey | None) -> None:
    if by is not None and by.role is not None and RANK[role] > RANK[by.role]:
        raise Forbidden(f"A key of one who is {by.role} cannot make or change one who is {role}.")


def _view(row: Row) -> PersonView:
    return PersonView(
        id=ids.prefixed(ids.PERSON, row["id"]),
        email=row["email"],
        name=row["name"],
        role=row["role"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
