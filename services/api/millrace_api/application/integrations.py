"""Integrations: a provider that an account is connected to by one of its credentials, and whether it answers.

The credential is held while an integration begins to use it, and cannot be deleted while one does. A test is one real
request, made while the caller waits; what it came to is kept with the integration, without the credential. Not here:
the providers (`millrace_core.providers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from millrace_api.application import credentials
from millrace_api.application.calling import Called, Outside
from millrace_api.application.notation import stored
from millrace_api.application.problems import Invalid, NotFound, at
from millrace_core import ids, limits
from millrace_core.clock import utc_now
from millrace_core.egress import Network, Target, check_url
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing
from millrace_core.outgoing_credentials import Credential, applied, check_host, masked
from millrace_core.providers import PROVIDERS, Provider, ProviderName, Verdict, judged
from millrace_store import queries
from millrace_store.aggregates import Row
from millrace_store.pool import Connection

_SQL = queries.load("api/integrations")
USER_AGENT = "Millrace"


@dataclass(frozen=True, slots=True)
class TestView:
    """What a test came to, in words."""

    status: Literal["succeeded", "failed"]
    http_status: int | None
    duration_ms: float
    message: str
    tested_at: datetime


@dataclass(frozen=True, slots=True)
class IntegrationView:
    """`credential` is its id; `last_test` null = it was not tested yet."""

    id: str
    provider: ProviderName
    name: str
    base_url: str
    credential: str
    last_test: TestView | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """An integration as its owner wants it. `credential` is an id or a name."""

    provider: ProviderName
    credential: str
    name: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """All that a test needs. Holds an opened credential: nothing shows it."""

    provider: Provider
    target: Target
    credential: Credential


async def create(
    tx: Connection, account: str, wanted: Wanted, *, now: datetime, egress: Sequence[Network]
) -> IntegrationView:
    """Nothing is asked of the provider yet. Raises Invalid."""
    provider = PROVIDERS[wanted.provider]
    base_url = wanted.base_url or provider.base_url
    if base_url is None:
        raise Invalid(f"is needed for {wanted.provider}", where="base_url")
    with at("base_url"):
        target = check_url(_test_url(provider, base_url), egress)
    held = await credentials.hold(tx, account, wanted.credential, where="credential")
    with at("credential"):
        check_host(held["hosts"], target)
    row = await tx.fetchrow(
        _SQL["insert_integration"],
        account,
        ids.uuid_of(ids.new_id(ids.INTEGRATION)),
        wanted.provider,
        wanted.name or provider.title,
        base_url,
        held["id"],
        now,
    )
    assert row is not None
    return _view(row)


async def get(tx: Connection, account: str, id: str) -> IntegrationView:
    row = await tx.fetchrow(_SQL["get_integration"], account, _stored(id))
    if row is None:
        raise NotFound("integration", id)
    return _view(row)


async def listed(
    tx: Connection, account: str, *, below: UUID | None, count: int, skipped: int = 0
) -> list[IntegrationView]:
    """Newest first."""
    return [_view(row) for row in await tx.fetch(_SQL["list_integrations"], account, below, count, skipped)]


async def total(tx: Connection, account: str) -> int:
    """How many there are."""
    row = await tx.fetchrow(_SQL["count_integrations"], account)
    assert row is not None
    return int(row["total"])


async def delete(tx: Connection, account: str, id: str, *, now: datetime) -> None:
    """Its credential stays."""
    if await tx.fetchrow(_SQL["delete_integration"], account, _stored(id), now) is None:
        raise NotFound("integration", id)


async def connection(tx: Connection, account: str, id: str, *, ring: KeyRing, egress: Sequence[Network]) -> Connected:
    """What a test of it needs. Raises NotFound, and Invalid when its URL may not be called any more."""
    row = await tx.fetchrow(_SQL["integration_with_credential"], account, _stored(id))
    if row is None:
        raise NotFound("integration", id)
    provider = PROVIDERS[row["provider"]]
    with at("base_url"):
        target = check_url(_test_url(provider, row["base_url"]), egress)
    with at("credential"):
        return Connected(provider, target, provider.placed(credentials.opened(row, ring=ring)))


async def test(outside: Outside, account: str, to: Connected) -> TestView:
    """Ask the provider, once."""
    headers = {"accept": "application/json", "user-agent": USER_AGENT}
    tested_at = utc_now(outside.clock)
    try:
        target, headers = applied(to.credential, to.target, headers)
    except Reject as reject:
        return TestView("failed", None, 0.0, str(reject), tested_at)
    called = await outside.call(to.provider.method, target, account=account, headers=headers)
    verdict = _verdict(to, called)
    message = masked(to.credential, verdict.message.encode()).decode()[: limits.ERROR_MESSAGE_CHARS_MAX]
    status: Literal["succeeded", "failed"] = "succeeded" if verdict.is_good else "failed"
    return TestView(status, called.http_status, called.duration_ms, message.replace("\0", ""), tested_at)


async def keep(tx: Connection, account: str, id: str, tested: TestView) -> None:
    """Show it as the last test."""
    await tx.execute(
        _SQL["keep_test"],
        account,
        _stored(id),
        tested.tested_at,
        tested.status,
        tested.http_status,
        tested.duration_ms,
        tested.message,
    )


def _verdict(to: Connected, called: Called) -> Verdict:
    if called.answer is None:
        assert called.error is not None
        return Verdict(False, f"{called.error.code}: {called.error.message}")
    return judged(to.provider, called.answer.status, masked(to.credential, called.answer.body))


def _test_url(provider: Provider, base_url: str) -> str:
    return base_url.rstrip("/") + provider.path if provider.path else base_url


def _stored(id: str) -> UUID:
    return stored(id, "integration", ids.INTEGRATION)


def _view(row: Row) -> IntegrationView:
    return IntegrationView(
        id=ids.prefixed(ids.INTEGRATION, row["id"]),
        provider=row["provider"],
        name=row["name"],
        base_url=row["base_url"],
        credential=ids.prefixed(ids.CREDENTIAL, row["credential"]),
        last_test=None if row["tested_at"] is None else _test_view(row),
        created_at=row["created_at"],
    )


def _test_view(row: Row) -> TestView:
    return TestView(
        row["test_status"], row["test_http_status"], row["test_duration_ms"], row["test_message"], row["tested_at"]
    )
