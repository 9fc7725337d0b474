"""Nonces of signed requests that this gateway has taken, so that a captured request does nothing when it is sent again.

Kept for as long as a request can be signed for, then forgotten; beyond the bound the oldest go first. They are this
process's own: another gateway, or this one after a restart, knows nothing of them. Not here: the api's nonces, which
are in Postgres.
"""

import hashlib

from millrace_core import limits
from millrace_web.signed_requests import SignedCall, reused


class Nonces:
    """Nothing is paid for a request that is not signed. Not safe for use by several threads."""

    def __init__(self, kept_max: int = limits.GATEWAY_NONCES_MAX) -> None:
        self._kept_max = kept_max
        self._forgotten_at_ms: dict[bytes, int] = {}
        """In the order in which they came, which is the order in which they are forgotten."""

    def __len__(self) -> int:
        return len(self._forgotten_at_ms)

    def spend(self, call: SignedCall, *, now_ms: int) -> None:
        """Take the nonce of a request that is proven. Raises ApiError 401 when it was taken before."""
        self._forget(now_ms)
        named = f"{call.key.account}/{call.key.id}/{call.nonce}".encode()
        digest = hashlib.blake2b(named, digest_size=16).digest()
        if digest in self._forgotten_at_ms:
            raise reused()
        if len(self._forgotten_at_ms) >= self._kept_max:
            del self._forgotten_at_ms[next(iter(self._forgotten_at_ms))]
        self._forgotten_at_ms[digest] = now_ms + limits.GATEWAY_NONCE_S * 1000

    def _forget(self, now_ms: int) -> None:
        # A few with each that comes: as many as come are forgotten, and no request pays for all.
        for _ in range(limits.NONCES_FORGOTTEN_AT_ONCE):
            oldest = next(iter(self._forgotten_at_ms.items()), None)
            if oldest is None or oldest[1] > now_ms:
                return
            del self._forgotten_at_ms[oldest[0]]
