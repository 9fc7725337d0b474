"""RED for a surface: each answer, with its route as declared (never the path as asked: that has no bound)."""

import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNKNOWN_ROUTE = "unknown"


class HttpObserver(Protocol):
    """Told of requests. The runtime's metrics stand behind it; must not block or raise."""

    def began(self, surface: str) -> None: ...
    def answered(self, surface: str, route: str, method: str, status: int, seconds: float) -> None: ...


class Observed:
    """The ASGI layer. A request that ended without an answer (the client went away) counts as status 499."""

    def __init__(self, app: ASGIApp, *, surface_of: Callable[[Scope], str], observer: HttpObserver) -> None:
        self._app = app
        self._surface_of = surface_of
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, surface = 499, time.perf_counter(), self._surface_of(scope)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._observer.began(surface)
        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            self._observer.answered(surface, route_of(scope), scope["method"], status, seconds)


def route_of(scope: Scope) -> str:
    """The declared path of the route that answered."""
    return str(getattr(scope.get("route"), "path", UNKNOWN_ROUTE))
