"""A bound on request bodies that also holds for streams: what was announced is refused before it is read, what comes
without a length is refused at the first byte too many.

A refused body is read to its end (up to 16 MB, in at most 5 s) before the answer, or the client, still writing, would
see a reset instead of the message; then the connection is closed.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core import limits
from millrace_web.envelopes import Envelope, error_response
from millrace_web.errors import ApiError
from millrace_web.request_ids import request_id_of

DISCARDED_BYTES_MAX = 16 * 1_048_576
DISCARD_S_MAX = 5.0


def too_large(status: int, bytes_max: int) -> ApiError:
    """The error for a body over the limit."""
    code = "PAYLOAD_TOO_LARGE" if status == 413 else "VALIDATION_ERROR"
    message = f"The body is over {bytes_max} bytes, which is the most that is taken here: send less at once."
    return ApiError(status, message, code=code, headers={"connection": "close"})


def announced_length(scope: Scope) -> int | None:
    """What `Content-Length` says; None when it is absent (a stream)."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def discard(receive: Receive, already: int = 0) -> None:
    """Read what the client still writes, within bounds, so that it gets to read our answer."""
    try:
        async with asyncio.timeout(DISCARD_S_MAX):
            while already < DISCARDED_BYTES_MAX:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                already += len(message.get("body", b""))
    except TimeoutError:
        return


class BodyLimit:
    """The ASGI layer. `bytes_max` and the envelope may depend on the path."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        envelope_of: Callable[[Scope], Envelope],
        bytes_max_of: Callable[[Scope], int] = lambda _: limits.BODY_BYTES_MAX,
    ) -> None:
        self._app = app
        self._envelope_of = envelope_of
        self._bytes_max_of = bytes_max_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        envelope, bytes_max = self._envelope_of(scope), self._bytes_max_of(scope)
        error = too_large(envelope.body_too_large, bytes_max)
        announced = announced_length(scope)
        if announced is not None and announced > bytes_max:
            if announced <= DISCARDED_BYTES_MAX:
                await discard(receive)
            await error_response(error, envelope, request_id_of(scope))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > bytes_max:
                    if message.get("more_body"):
                        await discard(receive, read)
                    # An HTTPException: FastAPI lets it through its own body parsing to the surface's handler.
                    raise error
            return message

        await self._app(scope, counted, send)
