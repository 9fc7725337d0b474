"""Pages of other origins may call: the CORS headers, and the preflight that a browser sends first.

Callers prove who they are by headers that a page must set itself, never by cookies, so any origin may ask unless an
operator names those that may; credentials of the browser are never allowed. A preflight carries no key and is answered
here, before any route, rate or key: it tells nothing but what every page may try. The ASGI layer belongs outermost.
"""

from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core import request_signing
from millrace_web.idempotency import REPLAYED
from millrace_web.positions import HEADER as POSITION

ANY: Final = "*"
NONE: Final = "none"
METHODS: Final = b"GET, POST, PATCH, DELETE, HEAD, OPTIONS"
ALLOWED: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "X-Request-Id",
    POSITION,
    *request_signing.HEADERS,
)
"""What a page may send at least; other headers that a preflight asks for are allowed too: none of them is secret."""
EXPOSED: Final = (
    "X-Request-Id",
    POSITION,
    REPLAYED,
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
    "WWW-Authenticate",
    "Content-Disposition",
    "Deprecation",
    "Sunset",
    "Link",
)
"""What a page may read, beside what it always may."""
MAX_AGE_S: Final = 7_200

Headers = list[tuple[bytes, bytes]]


def parse_origins(text: str) -> frozenset[str]:
    """From a setting: `*`, or origins with commas between; `none` = no page of another origin may call."""
    if text.strip() == NONE:
        return frozenset()
    return frozenset(origin.rstrip("/") for origin in (part.strip() for part in text.split(",")) if origin)


class Cors:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode("latin-1", "replace") for origin in origins)
        self._any = ANY.encode() in self._origins
        self._exposed = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._origins:
            await self._app(scope, receive, send)
            return
        origin = _value(scope, b"origin")
        if scope["method"] == "OPTIONS" and _value(scope, b"access-control-request-method") is not None:
            await send({"type": "http.response.start", "status": 204, "headers": self._preflight(scope, origin)})
            await send({"type": "http.response.body", "body": b""})
            return
        own = self._own(origin)
        if not own:
            await self._app(scope, receive, send)
            return

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        await self._app(scope, receive, with_cors)

    def _own(self, origin: bytes | None) -> Headers:
        headers = self._allowed(origin)
        return [*headers, self._exposed] if headers and origin is not None else headers

    def _preflight(self, scope: Scope, origin: bytes | None) -> Headers:
        headers = self._allowed(origin)
        if origin is not None and (self._any or origin in self._origins):
            asked = _value(scope, b"access-control-request-headers")
            headers += [
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", asked or ", ".join(ALLOWED).encode()),
                (b"access-control-max-age", b"%d" % MAX_AGE_S),
            ]
        return [*headers, (b"content-length", b"0")]

    def _allowed(self, origin: bytes | None) -> Headers:
        """Whether this origin may read the answer. Where not all may, the answer depends on who asks, and says so."""
        if self._any:
            return [] if origin is None else [(b"access-control-allow-origin", b"*")]
        vary = [(b"vary", b"Origin")]
        return [(b"access-control-allow-origin", origin), *vary] if origin in self._origins else vary


def _value(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None
