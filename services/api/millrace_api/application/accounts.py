"""The caller's own account."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from millrace_api.application import flows
from millrace_api.application.changes import Change
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_core import limits
from millrace_core.flow import check_account_flow
from millrace_core.identifiers import parse_identifier
from millrace_store import queries
from millrace_store.aggregates import Row, account_entry
from millrace_store.pool import Connection

_SQL = queries.load("api/accounts")
UNORDERED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class AccountView:
    """What was received before `kept_since` is not shown any more: that many whole UTC days before today. `flow` says
    when the runs that events start may begin, over all subscriptions."""

    id: str
    name: str
    plan: str
    enabled: bool
    unordered: list[str]
    flow: dict[str, Any] | None
    created_at: datetime
    retention_days: int
    kept_since: datetime


async def get(tx: Connection, account: str) -> AccountView:
    row = await tx.fetchrow(_SQL["get_account"], account)
    if row is None:
        raise NotFound("account", account)
    return _view(row)


async def set_unordered(change: Change, account: str, unordered: list[str]) -> None:
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


async def set_flow(change: Change, account: str, flow: dict[str, Any] | None) -> None:
    """Say when the runs of matches from now on may begin, over all subscriptions of the account; None = as their own
    flows say. A change holds for those that wait by an earlier one, too."""
    if flow is not None:
        with at("flow"):
            check_account_flow(flows.flow_of(flow))
    current = await change.tx.fetchrow(_SQL["lock_account"], account)
    if current is None:
        raise NotFound("account", account)
    row = await change.tx.fetchrow(_SQL["set_flow"], account, flows.kept(flow, before=current["flow"]))
    assert row is not None
    await change.publish(account_entry(row))


async def set_retention(tx: Connection, account: str, days: int, *, most: int) -> None:
    """Show and keep the account's things for so many days. Fewer hide at once what is older."""
    if not limits.RETENTION_DAYS_MIN <= days <= most:
        raise Invalid(
            f"must be {limits.RETENTION_DAYS_MIN} to {most}: no longer than the log can make the rows again",
            where="retention_days",
        )
    await tx.execute(_SQL["keep_account"], account, days)


def _view(row: Row) -> AccountView:
    return AccountView(
        id=row["id"],
        name=row["name"],
        plan=row["plan"],
        enabled=row["enabled"],
        unordered=row["unordered"],
        flow=flows.shown(row["flow"]),
        created_at=row["created_at"],
        retention_days=row["retention_days"],
        kept_since=row["kept_since"],
    )
