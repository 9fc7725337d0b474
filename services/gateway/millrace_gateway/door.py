"""Who comes in: a key in force with the scope, within its account's rate, while there is room and the log is there.

In this order, cheapest and safest first: view fresh (else nobody knows which keys are revoked), key, scope, rate, log,
room. Every refusal says what to do.
"""

from dataclasses import dataclass

from millrace_core import limits
from millrace_gateway.ports import EventLog, View
from millrace_web import scopes
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys
from millrace_web.authentication import Authenticator, Headers
from millrace_web.errors import ApiError, unavailable
from millrace_web.rate_limits import RateLimits, Verdict


@dataclass(frozen=True, slots=True)
class Door:
    """Asked once for each request."""

    authenticator: Authenticator
    accounts: Accounts
    rates: RateLimits
    log: EventLog

    def caller(self, headers: Headers) -> ApiKey:
        """The key that may publish. Raises ApiError 401, 403, 503."""
        return self.authenticator.authenticate(headers, scopes.PUBLISH_EVENTS)

    def rate(self, key: ApiKey) -> Verdict:
        """Count this request; whether it passes is in the verdict."""
        return self.rates.take(key.account, key.plan)

    def room_for(self, records: int) -> None:
        """Raises ApiError 503 when the log is away or too much is in flight. Nothing was taken then."""
        if self.log.ready() is not None:
            raise log_away()
        if self.log.in_flight + records > limits.GATEWAY_IN_FLIGHT_MAX:
            raise unavailable(
                "Too many events are in flight here right now; nothing was taken. Send it again shortly.",
                retry_after_s=limits.GATEWAY_RETRY_AFTER_S,
                code="OVERLOADED",
            )


def open_door(*, keys: ApiKeys, accounts: Accounts, rates: RateLimits, log: EventLog, view: View) -> Door:
    """The door as a gateway has it."""
    return Door(Authenticator(keys, accounts, stale=lambda: stale(view)), accounts, rates, log)


def stale(view: View) -> str | None:
    """Why keys may be out of date, None when they are not."""
    age = view.fresh_age_s()
    if age <= limits.CONTROL_LAG_S_MAX:
        return None
    return "the list of keys has not been read yet" if age == float("inf") else f"the list of keys is {age:.1f} s old"


def log_away() -> ApiError:
    """503: nothing can be written now, and nothing was."""
    return unavailable(
        "The event log cannot be reached right now; nothing was taken. Send it again shortly.",
        retry_after_s=limits.GATEWAY_RETRY_AFTER_S,
        code="LOG_UNAVAILABLE",
    )


def rate_limited(verdict: Verdict) -> ApiError:
    """429 with `Retry-After`."""
    return ApiError(
        429,
        f"This account's limit of {verdict.limit} requests is used up: wait {verdict.retry_after_s} s, or send batches "
        "to /ingest/event/publish/batch, which count as one request.",
        headers={"retry-after": str(verdict.retry_after_s)},
    )
