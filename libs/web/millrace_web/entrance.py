"""What a key that proved itself still passes before any work is done for it: its rate, and its nonce, once.

The rate comes first: it costs least. Held by the application's `state.entrance`; without one, nothing is counted.
"""

from collections.abc import Callable
from typing import Protocol

from starlette.types import Scope

from millrace_core.request_signing import Signed
from millrace_web.api_keys import ApiKey
from millrace_web.caller_rates import CallerRates, note
from millrace_web.signed_requests import reused


class Nonces(Protocol):
    """Nonces of signed requests, shared by all replicas."""

    async def spend(self, key: ApiKey, signed: Signed) -> bool:
        """Whether this is the first time that the key uses this nonce, within the time that the request holds."""
        ...


class Entrance:
    """Passed once by each request."""

    def __init__(self, rates: CallerRates, nonces: Nonces, *, used: Callable[[ApiKey], None] = lambda _: None) -> None:
        """`used` is told of each key that passes; must not block."""
        self._rates = rates
        self._nonces = nonces
        self._used = used

    async def enter(self, scope: Scope, key: ApiKey, signed: Signed | None) -> None:
        """Raises ApiError: 429 over the rate, 401 for a nonce that was used before."""
        note(scope, await self._rates.take(key, scope["method"], scope["path"]))
        if signed is not None and not await self._nonces.spend(key, signed):
            raise reused()
        self._used(key)
