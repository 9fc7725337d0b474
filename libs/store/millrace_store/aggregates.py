"""From the API's rows to what `control` says of them: one row, one entry, whoever writes it.

The API does it for each change, the command line for the keys it makes, and `millrace control republish` for all rows
there are. What is deleted, revoked or switched off for good becomes an entry without a value. Ids get their prefix
here, since everything behind the log speaks of written ids. Not here: the rows' rules.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from millrace_core import ids
from millrace_core.event_names import is_name
from millrace_core.messages import (
    AccountControl,
    ActionControl,
    CredentialControl,
    EndpointControl,
    FlowControl,
    KeyControl,
    PlanControl,
    Raw,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_store import queries
from millrace_store.outbox import Entry
from millrace_store.pool import Connection

_REPUBLISH = queries.load("api/republish")

ACCOUNT = "account"
KEY = "key"
SUBSCRIPTION = "subscription"
PLAN = "plan"
ENDPOINT = "endpoint"
CREDENTIAL = "credential"
ACTION = "action"


class Row(Protocol):
    """A row as the driver gives it."""

    def __getitem__(self, column: str, /) -> Any: ...


PLAN_PREFIX: Mapping[str, str] = {"job": ids.JOB, "chain": ids.CHAIN, "workflow": ids.WORKFLOW}
TARGET_PREFIX: Mapping[str, str] = {**PLAN_PREFIX, "webhook": ids.ENDPOINT}


def account_entry(row: Row) -> Entry:
    """What gateways, matchers and orchestrators learn of a whole account."""
    value = encode(AccountControl(enabled=row["enabled"], unordered=tuple(row["unordered"]), flow=_flow(row["flow"])))
    return Entry(ACCOUNT, row["id"], row["id"], row["version"], value)


def key_entry(row: Row) -> Entry:
    """What gateways learn of a key. Expired keys stay: every reader checks `expires_at` itself."""
    value = None
    if row["revoked_at"] is None:
        value = encode(
            KeyControl(
                account=row["account"],
                name=row["name"],
                digest=row["digest"],
                scopes=tuple(row["scopes"]),
                plan=row["plan"],
                surface=row["surface"],
                test=row["test"],
                expires_at=None if row["expires_at"] is None else ms(row["expires_at"]),
                secret=row["sealed_secret"],
                old_digest=row["old_digest"],
                old_secret=row["old_sealed_secret"],
                old_until=None if row["old_until"] is None else ms(row["old_until"]),
                person=None if row["person"] is None else ids.prefixed(ids.PERSON, row["person"]),
                role=row["role"],
            )
        )
    return Entry(KEY, row["account"], ids.prefixed(ids.KEY, row["id"]), row["version"], value)


def plan_entry(row: Row) -> Entry:
    """A job's or chain's newest version."""
    value = None
    if row["deleted_at"] is None:
        value = encode(PlanControl(account=row["account"], plan=Raw(row["compiled"])))
    return Entry(PLAN, row["account"], ids.prefixed(PLAN_PREFIX[row["kind"]], row["id"]), row["version"], value)


def workflow_entry(row: Row) -> Entry:
    """A workflow's newest published version: a plan like any other. A draft is none."""
    value = None
    if row["deleted_at"] is None and row["status"] == "published":
        value = encode(PlanControl(account=row["account"], plan=Raw(row["compiled"])))
    return Entry(PLAN, row["account"], ids.prefixed(ids.WORKFLOW, row["id"]), row["version"], value)


def endpoint_entry(row: Row) -> Entry:
    """A webhook endpoint, its secrets still sealed, newest first."""
    value = None
    if row["deleted_at"] is None:
        schedule = row["retry_schedule_s"]
        value = encode(
            EndpointControl(
                account=row["account"],
                url=row["url"],
                secrets=tuple(secret for secret in (row["sealed_secret"], row["old_sealed_secret"]) if secret),
                enabled=row["enabled"],
                style=row["style"],
                retry_schedule_s=None if schedule is None else tuple(schedule),
                timeout_s=row["timeout_s"],
                concurrency=row["concurrency"],
                rate=row["rate"],
                names=tuple(written for written in row["events"] if is_name(written)),
            )
        )
    return Entry(ENDPOINT, row["account"], ids.prefixed(ids.ENDPOINT, row["id"]), row["version"], value)


def credential_entry(row: Row) -> Entry:
    """A credential, its value still sealed."""
    value = None
    if row["deleted_at"] is None:
        value = encode(
            CredentialControl(
                account=row["account"],
                name=row["name"],
                type=row["type"],
                secret=row["sealed_value"],
                where=row["place"],
                parameter=row["parameter"],
                prefix=row["prefix"],
                hosts=tuple(row["hosts"]),
            )
        )
    return Entry(CREDENTIAL, row["account"], ids.prefixed(ids.CREDENTIAL, row["id"]), row["version"], value)


def subscription_entry(row: Row) -> Entry:
    """A subscription; the matcher tells plans from endpoints."""
    value = None
    if row["deleted_at"] is None:
        value = encode(
            SubscriptionControl(
                account=row["account"],
                pattern=row["pattern"],
                target_kind="endpoint" if row["target_kind"] == "webhook" else "plan",
                target_id=ids.prefixed(TARGET_PREFIX[row["target_kind"]], row["target_id"]),
                created_at=ms(row["created_at"]),
                priority=row["priority"],
                enabled=row["enabled"],
                where=row["where"],
                flow=_flow(row["flow"]),
                filter=Raw(b"null" if row["filter"] is None else row["filter"].encode()),
            )
        )
    return Entry(SUBSCRIPTION, row["account"], ids.prefixed(ids.SUBSCRIPTION, row["id"]), row["version"], value)


def _flow(kept: str | None) -> FlowControl | None:
    return None if kept is None else decode(kept.encode(), FlowControl)


def action_entry(row: Row) -> Entry:
    """A registered contract, its secret still sealed."""
    value = None
    if row["deleted_at"] is None:
        value = encode(
            ActionControl(
                account=row["account"],
                name=row["name"],
                version=row["version"],
                secret=row["sealed_secret"],
                seal=row["seal"],
                contract=Raw(row["contract"]),
            )
        )
    return Entry(ACTION, row["account"], ids.prefixed(ids.ACTION, row["id"]), row["version"], value)


async def every_entry(connection: Connection) -> AsyncIterator[Entry]:
    """Every aggregate there is or was. Needs an open transaction."""
    for file, name, entry_of in (
        ("accounts", "all_accounts", account_entry),
        ("keys", "all_keys", key_entry),
        ("plans", "all_plans", plan_entry),
        ("workflows", "all_workflows", workflow_entry),
        ("webhooks", "all_endpoints", endpoint_entry),
        ("credentials", "all_credentials", credential_entry),
        ("subscriptions", "all_subscriptions", subscription_entry),
        ("actions", "all_actions", action_entry),
    ):
        async for row in connection.cursor(queries.load(f"api/{file}")[name]):
            yield entry_of(row)


async def republish(connection: Connection) -> int:
    """Queue every aggregate's newest version for the relay again; how many that were. Changes wait meanwhile.

    For a `control` topic that was lost, or whose values shall be made anew: the relay alone writes there, so nothing
    old can come to stand behind something new."""
    count = 0
    async with connection.transaction():
        await connection.execute(_REPUBLISH["hold_still"])
        async for entry in every_entry(connection):
            await connection.execute(
                _REPUBLISH["queue_again"], entry.kind, entry.account, entry.id, entry.version, entry.value
            )
            count += 1
    return count


def ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return round(at.timestamp() * 1000)
