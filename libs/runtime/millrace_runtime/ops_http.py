"""The ops port: `/metrics`, `/livez`, `/readyz`, on its own listener so that no surface's load or limit is in its way.

A few dozen lines on asyncio streams instead of a web framework: every service has one, and this costs it no memory.
GET and HEAD only, one request a connection, 8 KB of request, 5 seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import orjson

from millrace_runtime.health import Health

REQUEST_BYTES_MAX = 8_192
REQUEST_S_MAX = 5.0
REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 400: "Bad Request", 503: "Service Unavailable"}
Answer = tuple[int, str, bytes]

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE = "application/json"


@asynccontextmanager
async def ops_server(
    health: Health, metrics: Callable[[], bytes], *, name: str, host: str, port: int
) -> AsyncIterator[int]:
    """Serve while inside; gives the port, which the system chose where `port` is 0."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, health, metrics, name))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, host, port, limit=REQUEST_BYTES_MAX)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _response(head: bytes, health: Health, metrics: Callable[[], bytes], name: str) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    status, content_type, body = _answer(method, rest.partition(b" ")[0].partition(b"?")[0], health, metrics, name)
    lines = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return lines.encode() + (b"" if method == b"HEAD" else body)


def _answer(method: bytes, path: bytes, health: Health, metrics: Callable[[], bytes], name: str) -> Answer:
    if method not in (b"GET", b"HEAD"):
        return 405, JSON_TYPE, b'{"message":"only GET is answered here"}'
    if path == b"/livez":
        return 200, JSON_TYPE, orjson.dumps({"service": name, "live": True})
    if path == b"/readyz":
        reasons = health.reasons()
        return (
            503 if reasons else 200,
            JSON_TYPE,
            orjson.dumps({"service": name, "ready": not reasons, "reasons": reasons}),
        )
    if path == b"/metrics":
        return 200, METRICS_TYPE, metrics()
    return 404, JSON_TYPE, b'{"message":"only /metrics, /livez and /readyz are here"}'
