"""Who comes in: a key in force with the scope, within its account's rate, while there is room and the log is there.

In this order, cheapest and safest first: view fresh (else nobody knows which keys are revoked), key, scope, rate, log,
room. Every refusal says what to do.
"""

from starlette.types import Scope

from millrace_core import limits
from millrace_gateway.nonces import Nonces
from millrace_gateway.ports import EventLog, View
from millrace_web import scopes
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys
from millrace_web.authentication import Authenticator, Headers
from millrace_web.errors import ApiError, unavailable
from millrace_web.rate_limits import RateLimits, Verdict
from millrace_web.rate_plans import SMALLEST
from millrace_web.signed_requests import Signatures, SignedCall


class Door:
    """Asked once for each request."""

    def __init__(self, *, authenticator: Authenticator, accounts: Accounts, rates: RateLimits, log: EventLog) -> None:
        self.accounts = accounts
        self._authenticator = authenticator
        self._rates = rates
        self._log = log
        self._nonces = Nonces()
        self.inside = 0
        """Events let in and not yet answered."""

    def caller(self, headers: Headers) -> ApiKey:
        """The key that may publish. Raises ApiError 401, 403, 503."""
        return self._authenticator.authenticate(headers, scopes.PUBLISH_EVENTS)

    def signed(self, asgi: Scope) -> SignedCall | None:
        """The signed request, still to be proven with its body; None = it is not signed. Raises ApiError 401, 503."""
        return self._authenticator.signed(asgi)

    def proven(self, call: SignedCall, body: bytes, *, now_ms: int) -> ApiKey:
        """The key that signed exactly this, may publish, and has not sent this nonce here before. Raises ApiError 401,
        403."""
        key = self._authenticator.admitted(call.proven(body), scopes.PUBLISH_EVENTS)
        self._nonces.spend(call, now_ms=now_ms)
        return key

    def fire_rate(self, key: ApiKey) -> Verdict:
        """Count this request to `/v1/events/fire`; whether it passes is in the verdict."""
        return self._rates.take_fire(key.account, key.plan)

    def rate(self, key: ApiKey) -> Verdict:
        """Count this request; whether it passes is in the verdict."""
        return self._rates.take(key.account, key.plan)

    def unknown(self) -> Verdict:
        """What an answer shows that belongs to no key: the smallest plan's limit, untouched."""
        return self._rates.look("", SMALLEST.name)

    def let_in(self, events: int) -> None:
        """Take room for them, until `let_out`. Raises ApiError 503 when the log is away or there is no room: nothing
        was taken then. Room is taken before anything is awaited, or requests that come together pass it together."""
        if self._log.ready() is not None:
            raise log_away()
        if self.inside + events > limits.GATEWAY_IN_FLIGHT_MAX:
            raise unavailable(
                "Too many events are in flight here right now; nothing was taken. Send it again shortly.",
                retry_after_s=limits.GATEWAY_RETRY_AFTER_S,
                code="OVERLOADED",
            )
        self.inside += events

    def let_out(self, events: int) -> None:
        self.inside -= events


def open_door(
    *,
    keys: ApiKeys,
    accounts: Accounts,
    rates: RateLimits,
    log: EventLog,
    view: View,
    signatures: Signatures | None = None,
) -> Door:
    """The door as a gateway has it. Without `signatures` it takes nothing signed."""
    authenticator = Authenticator(keys, accounts, signatures=signatures, stale=lambda: stale(view))
    return Door(authenticator=authenticator, accounts=accounts, rates=rates, log=log)


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
