"""How often a key may ask, counted before any work is done for it; and the headers that say so on every answer.

`CallerRates` decides, `RateHeaders` is the ASGI layer that writes what was decided. While the store of the counts does
not answer, requests pass uncounted, and the observer is told. A key without a practical limit is not counted at all.
"""

from collections.abc import Callable, Sequence
from math import ceil

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_web.api_keys import ApiKey
from millrace_web.errors import ApiError
from millrace_web.rate_limits import Verdict
from millrace_web.rate_plans import MINUTE_S, PLANS, UNLIMITED, Window, windows_of
from millrace_web.sliding_windows import Counted, Windows

_STATE = "millrace.rate"
_HEADER = b"x-ratelimit-limit"


class CallerRates:
    """Asked once for each request of a key."""

    def __init__(self, windows: Windows, clock: Clock, *, uncounted: Callable[[], None] = lambda: None) -> None:
        self._windows = windows
        self._clock = clock
        self._uncounted = uncounted

    async def take(self, key: ApiKey, method: str, path: str) -> Verdict:
        """Count this request; whether it passes is in the verdict."""
        windows = windows_of(key.plan, key.surface, method, path)
        if not windows:
            return self._untouched(Window(UNLIMITED, MINUTE_S, PLANS[UNLIMITED].per_minute))
        try:
            return self._verdict(await self._windows.take(f"{key.account}/{key.id}", windows))
        except Retry:
            self._uncounted()
            return self._untouched(windows[0])

    def _verdict(self, counted: Sequence[Counted]) -> Verdict:
        """Of the window that refuses, else of the one with the fewest left."""
        least = min(counted, key=lambda one: (one.is_allowed, one.remaining))
        reset_at = ceil(self._clock.now_ms() / 1000 + least.reset_in_s)
        retry_after_s = None if least.is_allowed else max(1, ceil(least.reset_in_s))
        return Verdict(least.window.allowed, least.remaining, reset_at, retry_after_s)

    def _untouched(self, window: Window) -> Verdict:
        return Verdict(window.allowed, window.allowed, ceil(self._clock.now_ms() / 1000) + window.seconds)


def note(scope: Scope, verdict: Verdict) -> None:
    """Let the answer to this request carry the verdict. Raises ApiError 429 when it is refused."""
    scope[_STATE] = verdict
    if verdict.retry_after_s is not None:
        raise ApiError(
            429,
            f"The limit of {verdict.limit} requests is used up: wait {verdict.retry_after_s} s.",
            details={"retry_after": verdict.retry_after_s},
            headers={"retry-after": str(verdict.retry_after_s)},
        )


class RateHeaders:
    """The ASGI layer. An answer that nothing was counted for (no valid key, nothing at that path) shows `uncounted`."""

    def __init__(
        self, app: ASGIApp, *, uncounted: Callable[[], Verdict], per_s_of: Callable[[Scope], int] = lambda _: 1
    ) -> None:
        self._app = app
        self._uncounted = uncounted
        self._per_s_of = per_s_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_rate(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                if all(name.lower() != _HEADER for name, _ in headers):
                    verdict: Verdict = scope.get(_STATE) or self._uncounted()
                    message["headers"] = [*headers, *verdict.headers(per_s=self._per_s_of(scope))]
            await send(message)

        await self._app(scope, receive, send_with_rate)
