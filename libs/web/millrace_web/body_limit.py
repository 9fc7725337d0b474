"""A bound on request bodies that also holds for streams: what was announced is refused before it is read, what comes
without a length is refused at the first byte too many.

All bodies of requests under way have one bound together, and each arrives in time or is given up.

A refused body is read to its end (up to 16 MB, in at most 5 s) before the answer, or the client, still writing, would
see a reset instead of the message; then the connection is closed.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace_core import limits
from millrace_web.envelopes import Envelope, error_response
from millrace_web.errors import ApiError, unavailable
from millrace_web.request_ids import request_id_of

DISCARDED_BYTES_MAX = 16 * 1_048_576
DISCARD_S_MAX = 5.0


def too_large(status: int, bytes_max: int) -> ApiError:
    """The error for a body over the limit."""
    code = "PAYLOAD_TOO_LARGE" if status == 413 else "VALIDATION_ERROR"
    message = f"The body is over {bytes_max} bytes, which is the most that is taken here: send less at once."
    return ApiError(status, message, code=code, headers={"connection": "close"})


def too_slow(read_s_max: float) -> ApiError:
    """The error for a body that does not come."""
    message = f"The body did not arrive within {read_s_max:g} s: send it again."
    return ApiError(408, message, code="TIMEOUT", headers={"connection": "close"})


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
    """The ASGI layer. `bytes_max` and the envelope may depend on the path; `held_bytes_max` bounds the sum of what was
    read for all requests under way, which is before anyone knows who asks."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        envelope_of: Callable[[Scope], Envelope],
        bytes_max_of: Callable[[Scope], int] = lambda _: limits.BODY_BYTES_MAX,
        held_bytes_max: int = limits.BODIES_HELD_BYTES_MAX,
        read_s_max: float = limits.BODY_READ_S_MAX,
    ) -> None:
        self._app = app
        self._envelope_of = envelope_of
        self._bytes_max_of = bytes_max_of
        self._held_bytes_max = held_bytes_max
        self._read_s_max = read_s_max
        self.held = 0

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
        reading = _Reading(self, receive, error, bytes_max=bytes_max, read_s_max=self._read_s_max)
        try:
            await self._app(scope, reading.receive, send)
        finally:
            self.held -= reading.read

    def hold(self, size: int) -> None:
        """Count them until their request is over. Raises ApiError 503 over the bound of all."""
        if self.held + size > self._held_bytes_max:
            raise unavailable(
                "Too much is in flight here right now; nothing was done. Send it again shortly.",
                retry_after_s=limits.BODIES_RETRY_AFTER_S,
                code="OVERLOADED",
            )
        self.held += size


class _Reading:
    """One request's body on its way. What it raises is an HTTPException: FastAPI lets it through its own body parsing
    to the surface's handler."""

    def __init__(
        self, limit: BodyLimit, receive: Receive, error: ApiError, *, bytes_max: int, read_s_max: float
    ) -> None:
        self._limit = limit
        self._receive = receive
        self._error = error
        self._bytes_max = bytes_max
        self._read_s_max = read_s_max
        self._until: float | None = None
        self._is_whole = False
        self.read = 0

    async def receive(self) -> Message:
        """As the application reads it. Raises ApiError 408, 413 (400 in a surface that says so), 503."""
        if self._is_whole:  # what comes now is the client's leaving, which may take as long as it likes
            return await self._receive()
        message = await self._next()
        if message["type"] != "http.request":
            return message
        self._is_whole = not message.get("more_body")
        size = len(message.get("body", b""))
        if self.read + size > self._bytes_max:
            if not self._is_whole:
                await discard(self._receive, self.read + size)
            raise self._error
        self._limit.hold(size)
        self.read += size
        return message

    async def _next(self) -> Message:
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._read_s_max
        try:
            async with asyncio.timeout_at(self._until):
                return await self._receive()
        except TimeoutError:
            raise too_slow(self._read_s_max) from None
