"""Signing up: an account, its owner and his first key, made together by somebody who has nothing yet.

The key has every scope, bounded by its owner's role. Nobody writes to the address that is given: who runs a deployment
that anyone may sign up to decides what he believes. Not here: how often it may be asked for (the route).
"""

from dataclasses import dataclass
from typing import Final

from millrace_api.application import accounts, keys, people
from millrace_api.application.accounts import AccountView
from millrace_api.application.changes import Change
from millrace_api.application.keys import KeyMaker, NewKey, NewKeyView
from millrace_api.application.people import PersonView
from millrace_api.application.problems import Conflict, Invalid
from millrace_core import ids
from millrace_store import queries
from millrace_store.aggregates import account_entry
from millrace_web.rate_plans import SMALLEST
from millrace_web.scopes import ALL

_SQL = queries.load("api/accounts")
TEST_SUFFIX: Final = "(test)"
"""How the accounts that test keys act on are called."""


@dataclass(frozen=True, slots=True)
class SignedUp:
    """What was made. The text of the key is shown this once."""

    account: AccountView
    person: PersonView
    key: NewKeyView


async def sign_up(change: Change, *, name: str, email: str, retention_days: int, maker: KeyMaker) -> SignedUp:
    """Raises Conflict when there is an account of this name."""
    if name.rstrip().endswith(TEST_SUFFIX):
        raise Invalid(f"must not end in {TEST_SUFFIX}", where="name")
    account = ids.new_id(ids.ACCOUNT)
    row = await change.tx.fetchrow(_SQL["insert_account"], account, name, SMALLEST.name, change.now, retention_days)
    if row is None:
        raise Conflict("There is an account of this name already: choose another.")
    await change.publish(account_entry(row))
    id = ids.new_id(ids.PERSON)
    person = await people.add(change, account, email=email, name=None, role="owner", by=None, id=id)
    first = NewKey("first key", (ALL,), person=id)
    key = await keys.insert(change, account, first, ids.uuid_of(id), maker=maker)
    return SignedUp(await accounts.get(change.tx, account), person, key)
