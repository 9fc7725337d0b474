"""Every request has an id: the caller's `X-Request-Id` where it is sane, else a new one; the answer carries it.

The ASGI layer belongs outermost, so that also what the framework answers by itself has the header.
"""

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core import ids

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_STATE = "millrace.request_id"


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id this request goes by. What is not sane is replaced: it would stand in logs and headers."""
    for name, value in headers:
        if name == HEADER and _SANE.fullmatch(value):
            return value.decode("ascii")
    return ids.new_id(ids.REQUEST)


def request_id_of(scope: Scope) -> str:
    """The request's id, wherever the layer stands above."""
    found: str | None = scope.get(_STATE)
    if found is None:
        found = scope[_STATE] = choose_request_id(scope["headers"])
    return found


class RequestIds:
    """The ASGI layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id = request_id_of(scope).encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                if all(name.lower() != HEADER for name, _ in headers):
                    message["headers"] = [*headers, (HEADER, id)]
            await send(message)

        await self._app(scope, receive, send_with_id)
