"""Who calls, as a FastAPI dependency: `caller: Annotated[ApiKey, Depends(require(scopes.MANAGE_KEYS))]`.

The application's `state.authenticator` must hold an `Authenticator`. 401 says how to give a key and carries
`WWW-Authenticate`; 403 names the scope that is missing; neither says whether a key ever existed.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from millrace_web.api_keys import Accounts, ApiKey, ApiKeys, bearer
from millrace_web.errors import ApiError, unavailable

Headers = Iterable[tuple[bytes, bytes]]

_scheme = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key: `Authorization: Bearer <key>`")


class Authenticator:
    """From a request's headers to the key in force. `stale` gives the reason when keys may be out of date."""

    def __init__(self, keys: ApiKeys, accounts: Accounts, *, stale: Callable[[], str | None] = lambda: None) -> None:
        self._keys = keys
        self._accounts = accounts
        self._stale = stale

    def authenticate(self, headers: Headers, scope: str | None) -> ApiKey:
        """The caller; a scope of None is any key's. Raises ApiError: 503 when keys are out of date, 401 without a valid
        key, 403 without scope."""
        reason = self._stale()
        if reason is not None:
            raise unavailable(f"Keys cannot be checked right now ({reason}). Try again shortly.", retry_after_s=1)
        text = bearer(headers)
        key = self._keys.find(text) if text else None
        if key is None:
            raise unauthorized(is_given=bool(text))
        if self._accounts.is_closed(key.account):
            raise ApiError(403, "This account is closed.")
        if scope is not None and not key.may(scope):
            raise ApiError(403, f"This key lacks the scope {scope!r}: use a key that has it.", details={"scope": scope})
        return key


def unauthorized(*, is_given: bool) -> ApiError:
    """401. With `WWW-Authenticate`, as RFC 6750 writes it."""
    if not is_given:
        return ApiError(
            401,
            "An API key is needed: send it as 'Authorization: Bearer <key>'.",
            headers={"www-authenticate": 'Bearer realm="millrace"'},
        )
    return ApiError(
        401,
        "This API key is not valid: it is unknown, revoked or expired. Use another, or create one.",
        headers={"www-authenticate": 'Bearer realm="millrace", error="invalid_token"'},
    )


def require(scope: str | None) -> Callable[..., Awaitable[ApiKey]]:
    """The dependency that lets only keys with this scope (None = any key) pass, and gives the key."""

    async def caller(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)] = None
    ) -> ApiKey:
        authenticator: Authenticator = request.app.state.authenticator
        return authenticator.authenticate(request.scope["headers"], scope)

    return caller
