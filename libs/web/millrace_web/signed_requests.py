"""Requests that are signed instead of carrying a key: from the four headers to who may have sent them, then to proof.

    call = signatures.claimed(asgi_scope, keys)      # None: nothing is signed here, look for a Bearer
    key = call.proven(body)                          # ApiError 401 unless the key's secret signed exactly this

Two steps, so that what is refused anyway is refused before its body is read. Not here: nonces that were used before
(the API keeps them in Postgres, each gateway in its memory), scopes (`authentication`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from starlette.types import Scope

from millrace_core import request_signing
from millrace_core.clock import Clock
from millrace_core.errors import Reject
from millrace_core.keyring import KeyRing, key_secret
from millrace_core.request_signing import Signed
from millrace_web.api_keys import ApiKey
from millrace_web.errors import ApiError


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A request that says who sent it. Nothing may be done for `key` before `proven`."""

    key: ApiKey
    signed: Signed
    method: str
    target: bytes
    ring: KeyRing

    @property
    def nonce(self) -> str:
        return self.signed.nonce

    def proven(self, body: bytes) -> ApiKey:
        """The key, whose secret signed exactly this request. Raises ApiError 401."""
        # Opened anew each time: it takes microseconds, and no opened secret lies in memory.
        sealed = self.key.sealed_secret or ""
        try:
            secret = self.ring.open(sealed, account=self.key.account, name=key_secret(self.key.id))
            request_signing.check_signature(self.signed, secret, method=self.method, target=self.target, body=body)
        except Reject as error:
            raise refused(error) from None
        return self.key


class Signatures:
    """What it takes to check signatures."""

    def __init__(self, ring: KeyRing, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock

    def claimed(self, scope: Scope, find: Callable[[str], ApiKey | None]) -> SignedCall | None:
        """The signed request in this ASGI scope, None when it is not signed; `find` looks a public key up. Raises
        ApiError 401 for what no body can make right."""
        try:
            signed = request_signing.read(scope["headers"])
            if signed is None:
                return None
            request_signing.check_time(signed, now_s=self._clock.now_ms() / 1000)
        except Reject as error:
            raise refused(error) from None
        key = find(signed.key)
        if key is None or key.sealed_secret is None:
            raise _unauthorized(
                f"This {request_signing.KEY} is not valid: it is unknown, revoked or expired, or has no secret to sign "
                "with."
            )
        return SignedCall(key, signed, scope["method"], target_of(scope), self._ring)


def target_of(scope: Scope) -> bytes:
    """Path and query as the client sent them."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


def refused(error: Reject) -> ApiError:
    """401 for a signature that proves nothing."""
    text = str(error)
    return _unauthorized(text[:1].upper() + text[1:] + ".")


def reused() -> ApiError:
    """401 for a nonce that was used before."""
    return _unauthorized(
        f"This {request_signing.NONCE} was used before: take another for every request, also when one is tried again "
        "(an Idempotency-Key keeps that from being done twice).",
        code="NONCE_REUSED",
    )


def _unauthorized(message: str, *, code: str | None = None) -> ApiError:
    return ApiError(401, message, code=code, headers={"www-authenticate": 'OpsIQ-HMAC realm="millrace"'})
