"""The bench's webhook receiver: a raw asyncio protocol in a process of its own.

Answers 200 at once and notes when the last byte of each webhook came. `GET /times` returns pairs of (sequence number,
perf_counter) as 16-byte records since the last `GET /clear`; `GET /count` the number seen.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from array import array
from typing import cast

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SEQS: array[int] = array("q")
TIMES: array[float] = array("d")


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = 0
            if at >= 0:
                stop = head.find(b"\r\n", at)
                length = int(head[at + 15 : stop if stop > 0 else None])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post"):
            # The limit's body is the event as a JSON string inside JSON, so its quotes may be escaped.
            at = body.find(b"seq")
            if at >= 0:
                digits = body[at + 3 : at + 24].lstrip(b'\\":')[:10]
                SEQS.append(int(digits) - 10**9)
                TIMES.append(time.perf_counter())
            self._transport.write(OK)
            return
        out = b""
        if head.startswith(b"get /times"):
            out = b"".join(struct.pack("<qd", s, t) for s, t in zip(SEQS, TIMES, strict=True))
        elif head.startswith(b"get /count"):
            out = b"%d" % len(SEQS)
        elif head.startswith(b"get /clear"):
            del SEQS[:], TIMES[:]
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(out) + out)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
