"""Is a server ready? Asked in its own protocol over a raw socket, so that no client library is needed here."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from millrace_devstack.ports import HOST

ANSWER_TIMEOUT_S = 2.0
_METADATA = 3
_CORRELATION = 7
_PROTOCOL_3 = 196_608
_ANSWER_BYTES_MAX = 1_048_576

_Reader = Callable[[asyncio.StreamReader], Awaitable[bytes]]


async def kafka_answers(port: int) -> bool:
    """Whether a broker on the port answers a Metadata request and counts at least one live broker (itself)."""
    client = b"millrace-devstack"
    # Metadata v1 for no topics: api key, version, correlation id, client id, empty array.
    request = struct.pack(">hhih", _METADATA, 1, _CORRELATION, len(client)) + client + struct.pack(">i", 0)
    answer = await _ask(port, struct.pack(">i", len(request)) + request, _kafka_frame)
    if answer is None or len(answer) < 8:
        return False
    correlation: int
    brokers: int
    correlation, brokers = struct.unpack_from(">ii", answer)
    return correlation == _CORRELATION and brokers > 0


async def postgres_answers(port: int) -> bool:
    """Whether a server on the port takes new connections: it answers a start-up with anything but 'not yet'."""
    body = struct.pack(">i", _PROTOCOL_3) + b"user\x00postgres\x00database\x00postgres\x00\x00"
    answer = await _ask(port, struct.pack(">i", len(body) + 4) + body, _postgres_message)
    # R: the server asks who we are. E: an error; 57P03 is "the database system is starting up".
    return answer is not None and (answer[:1] == b"R" or (answer[:1] == b"E" and b"C57P03\x00" not in answer))


async def http_get(port: int, path: str) -> tuple[int, bytes] | None:
    """Status and body of a GET on this machine, None when nobody answers."""
    request = f"GET {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\nconnection: close\r\n\r\n".encode()
    answer = await _ask(port, request, lambda reader: reader.read(-1))
    head, found, body = (answer or b"").partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return (int(words[1]), body) if found and len(words) > 1 and words[1].isdigit() else None


async def _kafka_frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(min(size, _ANSWER_BYTES_MAX))


async def _postgres_message(reader: asyncio.StreamReader) -> bytes:
    kind = await reader.readexactly(1)
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return kind + await reader.readexactly(min(max(size - 4, 0), _ANSWER_BYTES_MAX))


async def _ask(port: int, request: bytes, read: _Reader) -> bytes | None:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(request)
                return await read(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
