"""Request bodies in memory: each within its limit, all of them together within a bound, none of them read for ever."""

import asyncio

from starlette.types import Receive

from millrace_core import limits
from millrace_web.body_limit import DISCARDED_BYTES_MAX, discard, too_large, too_slow
from millrace_web.errors import unavailable


class ClientGone(Exception):
    """The client closed the connection before its body was whole; nobody waits for an answer."""


class Bodies:
    """Counts what is held. Whoever read a body gives it back with `release` when the request is over."""

    def __init__(self, bytes_max: int = limits.GATEWAY_IN_FLIGHT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.held = 0

    async def read(self, receive: Receive, *, announced: bytes | None, bytes_max: int) -> bytes:
        """The whole body. Raises ApiError 413 over `bytes_max`, 503 over the bound of all, 408 when it does not come;
        holds nothing then."""
        if announced is not None and announced.isdigit() and int(announced) > bytes_max:
            if int(announced) <= DISCARDED_BYTES_MAX:
                await discard(receive)
            raise too_large(413, bytes_max)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if len(body) > bytes_max:
            raise too_large(413, bytes_max)
        self._hold(len(body))
        return await self._rest(receive, body, bytes_max) if message.get("more_body") else body

    def release(self, body: bytes) -> None:
        self.held -= len(body)

    async def _rest(self, receive: Receive, first: bytes, bytes_max: int) -> bytes:
        body = bytearray(first)
        try:
            async with asyncio.timeout(limits.BODY_READ_S_MAX):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    if len(body) + len(chunk) > bytes_max:
                        if more:
                            await discard(receive, len(body))
                        raise too_large(413, bytes_max)
                    self._hold(len(chunk))
                    body += chunk
        except BaseException as error:
            self.held -= len(body)
            if isinstance(error, TimeoutError):
                raise too_slow(limits.BODY_READ_S_MAX) from None
            raise
        return bytes(body)

    def _hold(self, size: int) -> None:
        if self.held + size > self._bytes_max:
            raise unavailable(
                "Too much is in flight here right now; nothing was taken. Send it again shortly.",
                retry_after_s=limits.GATEWAY_RETRY_AFTER_S,
                code="OVERLOADED",
            )
        self.held += size
