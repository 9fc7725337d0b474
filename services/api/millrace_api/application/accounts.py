"""The caller's own account."""

from dataclasses import dataclass
from datetime import datetime

from millrace_api.application.changes import Change
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_core.identifiers import parse_identifier
from millrace_store import queries
from millrace_store.aggregates import Row, account_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/accounts")
UNORDERED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class AccountView:
    id: str
    name: str
    plan: str
    enabled: bool
    unordered: list[str]
    created_at: datetime


async def get(tx: Connection, account: str) -> AccountView:
    row = await tx.fetchrow(_SQL["get_account"], account)
    if row is None:
        raise NotFound("account", account)
    return _view(row)


async def set_unordered(change: Change, account: str, unordered: list[str]) -> AccountView:
    """Give up the order of events of these identifiers, so that one identifier uses all partitions."""
    if len(unordered) > UNORDERED_MAX:
        raise Invalid(f"at most {UNORDERED_MAX} identifiers can be unordered", where="unordered")
    for index, identifier in enumerate(unordered):
        with at(f"unordered.{index}"):
            parse_identifier(identifier)
    row = await change.tx.fetchrow(_SQL["update_account"], account, sorted(set(unordered)))
    if row is None:
        raise NotFound("account", account)
    await change.publish(account_entry(row))
    return _view(row)


def _view(row: Row) -> AccountView:
    return AccountView(row["id"], row["name"], row["plan"], row["enabled"], row["unordered"], row["created_at"])
