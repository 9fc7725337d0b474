"""A test of a webhook: one message, signed and sent as a delivery is, whose outcome the caller waits for.

To an endpoint it goes with the endpoint's own secrets, style and patience, also while it is disabled: to see whether it
is mended. To a bare URL it goes in the ops style, signed with the secret that the caller gives, else with that of the
key he signed with. Its ids are made for it alone; the log knows nothing of it, and it is tried once.
"""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from millrace_api.application import webhooks
from millrace_api.application.calling import Outside
from millrace_api.application.problems import Invalid, at
from millrace_api.application.views import ErrorView
from millrace_core import event_names, ids, limits, signing
from millrace_core.egress import Network, Target, check_url
from millrace_core.event import iso_of
from millrace_core.keyring import KeyRing, key_secret
from millrace_store.pool import Connection


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be sent where: exactly one of `url` and `webhook_id`."""

    event: str
    payload: dict[str, Any]
    url: str | None = None
    webhook_id: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a test goes, and how it is signed. Holds secrets: nothing shows it."""

    target: Target
    secrets: tuple[str, ...]
    style: webhooks.Style
    timeout_s: float


@dataclass(frozen=True, slots=True)
class TestView:
    """What came of it. `delivery_id` is in the message's headers, too."""

    delivery_id: str
    status: Literal["succeeded", "failed"]
    duration_ms: float
    http_status: int | None
    error: ErrorView | None


def check(wanted: Wanted) -> None:
    """What can be known without looking anywhere. Raises Invalid."""
    if (wanted.url is None) == (wanted.webhook_id is None):
        raise Invalid("give exactly one of url and webhook_id", where="url")
    if wanted.secret is not None and wanted.url is None:
        raise Invalid("a webhook is sent to with its own secret: leave it out", where="secret")
    with at("event"):
        if event_names.pattern_of(wanted.event).endswith("*"):
            raise Invalid("an event has a whole name", where="event")


async def endpoint(
    tx: Connection, account: str, wanted: Wanted, *, ring: KeyRing, egress: tuple[Network, ...]
) -> Destination:
    """The endpoint that is tested. Raises NotFound, and Invalid when its URL may not be sent to."""
    assert wanted.webhook_id is not None
    row = await webhooks.row_of(tx, account, wanted.webhook_id)
    with at("webhook_id"):
        target = check_url(row["url"], egress)
        secrets = webhooks.opened_secrets(row, ring=ring)
    timeout_s = min(row["timeout_s"], limits.API_CALL_TIMEOUT_S)
    return Destination(target, secrets, row["style"], timeout_s)


def bare(
    account: str,
    wanted: Wanted,
    *,
    key: str,
    sealed_secret: str | None,
    ring: KeyRing,
    egress: tuple[Network, ...],
) -> Destination:
    """A URL that is no endpoint. `sealed_secret` is that of the caller's `key`, if it has one. Raises Invalid."""
    assert wanted.url is not None
    with at("url"):
        target = check_url(wanted.url, egress)
    if wanted.secret is not None:
        secret = webhooks.checked_secret(wanted.secret)
    elif sealed_secret is not None:
        secret = ring.open(sealed_secret, account=account, name=key_secret(key))
    else:
        raise Invalid("your key has no secret to sign with: give one, or name a webhook", where="secret")
    return Destination(target, (secret,), "ops", limits.API_CALL_TIMEOUT_S)


async def send(
    outside: Outside, account: str, wanted: Wanted, to: Destination, *, delivery: str, user_agent: str
) -> TestView:
    """Send it, once."""
    now_ms = outside.clock.now_ms()
    event = ids.derived_id(ids.EVENT, ids.time_ms_of(delivery), "test", delivery)
    message = {"id": event, "type": wanted.event, "timestamp": iso_of(now_ms), "data": wanted.payload}
    body = orjson.dumps(message)
    stamp = now_ms // 1000
    headers = {"content-type": "application/json", "user-agent": user_agent, "accept": "*/*"}
    headers |= signing.signed_headers(delivery, stamp, body, to.secrets)
    if to.style == "ops":
        headers |= signing.ops_headers(delivery, event, stamp, body, to.secrets[0])
    called = await outside.call("POST", to.target, account=account, headers=headers, body=body, timeout_s=to.timeout_s)
    return TestView(delivery, called.status, called.duration_ms, called.http_status, called.error)
