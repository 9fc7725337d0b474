"""Routes that will end: said on each of their answers (RFC 9745 and RFC 8594), and in the OpenAPI document.

One table names them, by method and path as declared; it is the only place to write when a route shall go. The layer
stands around the routes. A route that is in no table costs a look-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_web.observed import route_of


@dataclass(frozen=True, slots=True)
class Deprecated:
    """A route that shall not be used any more, from when on, when it ends (UTC; None = not decided), and where a page
    says what to use instead."""

    method: str
    path: str
    since: datetime
    sunset: datetime | None = None
    link: str | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As its answers carry them."""
        found = [(b"deprecation", b"@%d" % int(self.since.timestamp()))]
        if self.sunset is not None:
            found.append((b"sunset", format_datetime(self.sunset, usegmt=True).encode()))
        if self.link is not None:
            found.append((b"link", f'<{self.link}>; rel="deprecation"; type="text/html"'.encode()))
        return found


DEPRECATED: Final[Sequence[Deprecated]] = ()
"""None so far."""


class Deprecations:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp, deprecated: Sequence[Deprecated]) -> None:
        self._app = app
        self._headers = {(one.method, one.path): one.headers() for one in deprecated}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._headers:
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Known by now: the route was found before it answered.
                own = self._headers.get((scope["method"], route_of(scope)), [])
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        await self._app(scope, receive, told)


def describe(paths: Mapping[str, Any], deprecated: Sequence[Deprecated]) -> None:
    """Mark them in the paths of an OpenAPI document. A route that is not there is a mistake of the table."""
    for one in deprecated:
        operation = paths[one.path][one.method.lower()]
        operation["deprecated"] = True
        for response in operation["responses"].values():
            response["headers"] = response.get("headers", {}) | _described(one)


def _described(one: Deprecated) -> Mapping[str, Any]:
    headers: dict[str, Any] = {
        "Deprecation": {"description": "Since when, as RFC 9745 writes it.", "schema": {"type": "string"}}
    }
    if one.sunset is not None:
        headers["Sunset"] = {"description": "When it ends (RFC 8594).", "schema": {"type": "string"}}
    if one.link is not None:
        headers["Link"] = {"description": "What to use instead.", "schema": {"type": "string"}}
    return headers
