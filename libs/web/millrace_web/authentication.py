"""Who calls, as a FastAPI dependency: `caller: Annotated[ApiKey, Depends(require(scopes.MANAGE_KEYS))]`.

A caller proves who he is by his key (`Authorization: Bearer`) or by a signature (`signed_requests`); a request with
`X-OpsIQ-Key` is a signed one, whatever else it carries. The application's `state.authenticator` must hold an
`Authenticator`. 401 says how to give a key and carries `WWW-Authenticate`; 403 names the scope that is missing; neither
says whether a key ever existed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope

from millrace_core import request_signing
from millrace_web.api_keys import Accounts, ApiKey, ApiKeys, bearer
from millrace_web.entrance import Entrance
from millrace_web.errors import ApiError, unavailable
from millrace_web.signed_requests import Signatures, SignedCall

Headers = Iterable[tuple[bytes, bytes]]

_PROVEN = "millrace.proven"
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="An API key: `Authorization: Bearer <key>`")
_signature = APIKeyHeader(
    name=request_signing.KEY,
    auto_error=False,
    scheme_name="Signature",
    description="A key with a secret: its public half here, and beside it "
    + ", ".join(f"`{name}`" for name in request_signing.HEADERS[1:])
    + ": `sha256=` and the hexadecimal HMAC-SHA256, under the secret, of timestamp, nonce, method, path with query and "
    "the hexadecimal SHA-256 of the body, joined by line feeds.",
)


class Authenticator:
    """From a request to the key in force. `stale` gives the reason when keys may be out of date; without `signatures`
    nothing signed is taken."""

    def __init__(
        self,
        keys: ApiKeys,
        accounts: Accounts,
        *,
        signatures: Signatures | None = None,
        stale: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._keys = keys
        self._accounts = accounts
        self._signatures = signatures
        self._stale = stale

    def authenticate(self, headers: Headers, scope: str | None) -> ApiKey:
        """The caller by his Bearer; a scope of None is any key's. Raises ApiError: 503 when keys are out of date, 401
        without a valid key, 403 without scope."""
        self._check_fresh()
        text = bearer(headers)
        key = self._keys.find(text) if text else None
        # The public half of a key that signs is no secret: it proves nothing.
        if key is None or key.sealed_secret is not None:
            raise unauthorized(is_given=bool(text))
        return self.admitted(key, scope)

    def signed(self, asgi: Scope) -> SignedCall | None:
        """The signed request of this ASGI scope, still to be proven with its body; None when it is not signed. Raises
        ApiError 503 and 401, as `authenticate`."""
        if self._signatures is None:
            return None
        self._check_fresh()
        return self._signatures.claimed(asgi, self._keys.find)

    def admitted(self, key: ApiKey, scope: str | None) -> ApiKey:
        """The key, which proved itself. Raises ApiError 403 when it may not do this."""
        if self._accounts.is_closed(key.account):
            raise ApiError(403, "This account is closed.")
        if scope is not None and not key.may(scope):
            raise ApiError(403, f"This key lacks the scope {scope!r}: use a key that has it.", details={"scope": scope})
        return key

    def _check_fresh(self) -> None:
        reason = self._stale()
        if reason is not None:
            raise unavailable(f"Keys cannot be checked right now ({reason}). Try again shortly.", retry_after_s=1)


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


@dataclass(frozen=True, slots=True)
class Required:
    """The dependency that lets only keys with this scope (None = any key) pass, and gives the key."""

    scope: str | None

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
        __: Annotated[str | None, Depends(_signature)] = None,
    ) -> ApiKey:
        authenticator: Authenticator = request.app.state.authenticator
        key: ApiKey | None = request.scope.get(_PROVEN)
        if key is None:
            # Several dependencies of a route ask: it is proven, counted and its nonce spent once.
            key = request.scope[_PROVEN] = await _proven(request, authenticator)
        return authenticator.admitted(key, self.scope)


def require(scope: str | None) -> Required:
    """Only keys with this scope pass (None = any key)."""
    return Required(scope)


async def _proven(request: Request, authenticator: Authenticator) -> ApiKey:
    call = authenticator.signed(request.scope)
    if call is None:
        key = authenticator.authenticate(request.scope["headers"], None)
    else:
        key = authenticator.admitted(call.proven(await request.body()), None)
    entrance: Entrance | None = getattr(request.app.state, "entrance", None)
    if entrance is not None:
        await entrance.enter(request.scope, key, None if call is None else call.signed)
    return key
