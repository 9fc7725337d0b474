"""The bench's client: HTTP/1.1 over raw asyncio protocols, so that its own cost is small and known.

Closed loop (`saturate`): every connection writes its next request when its answer came. Open loop (`paced`): requests
leave at their planned times whatever the answers do, so a slow server cannot hide its own delay. Times are
`time.perf_counter()`, which is one clock for all processes of the machine.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

EVENT_BYTES = 230


def event_body(seq: int) -> bytes:
    """One event of exactly 230 bytes with its sequence number inside."""
    head = b'{"eventType":{"provider":"bench","name":"order"},"properties":{"seq":%010d,"pad":"' % (10**9 + seq)
    return head + b"x" * (EVENT_BYTES - len(head) - 3) + b'"}}'


def request(path: str, body: bytes, key: str, content_type: str = "application/json") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Answers:
    """What came back: counts by status, and latency (s) of each answer."""

    ok: int = 0
    refused: int = 0
    latency_s: array[float] = field(default_factory=lambda: array("d"))
    last_refusal: bytes = b""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, answers: Answers, on_idle: Callable[[Connection], None]) -> None:
        self._answers = answers
        self._on_idle = on_idle
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._written_at = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> float:
        assert self._transport is not None
        self._written_at = time.perf_counter()
        self._transport.write(data)
        return self._written_at

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            stop = head.find(b"\r\n", at)
            length = int(head[at + 15 : stop if stop > 0 else None])
        elif b"chunked" in head:
            last = self._buffer.find(b"0\r\n\r\n", end + 4)
            length = last + 5 - end - 4 if last >= 0 else len(self._buffer)
        else:
            length = 0
        if len(self._buffer) < end + 4 + length:
            return
        if self._buffer[9:10] == b"2":
            self._answers.ok += 1
        else:
            self._answers.refused += 1
            self._answers.last_refusal = self._buffer[:500]
        self._answers.latency_s.append(time.perf_counter() - self._written_at)
        self._buffer = self._buffer[end + 4 + length :]
        self._on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


async def _connect(host: str, port: int, answers: Answers, on_idle: Callable[[Connection], None]) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(answers, on_idle), host, port)
    return connection


async def saturate(
    host: str, port: int, make: Callable[[int], bytes], *, connections: int, seconds: float
) -> tuple[Answers, float]:
    """Closed loop for `seconds`; the answers, and the seconds it truly took."""
    answers = Answers()
    seq = 0
    open_until = 0.0
    done = asyncio.Event()
    busy = connections

    def idle(connection: Connection) -> None:
        nonlocal seq, busy
        if time.perf_counter() < open_until and not connection.lost:
            connection.send(make(seq))
            seq += 1
            return
        busy -= 1
        if busy == 0:
            done.set()

    pool = [await _connect(host, port, answers, idle) for _ in range(connections)]
    began = time.perf_counter()
    open_until = began + seconds
    for connection in pool:
        idle(connection)
    await asyncio.wait_for(done.wait(), seconds + 30)
    took = time.perf_counter() - began
    for connection in pool:
        connection.close()
    return answers, took


async def paced(
    host: str, port: int, make: Callable[[int], bytes], *, rate: float, seconds: float, connections: int = 64
) -> tuple[Answers, array[float]]:
    """Open loop: request `n` leaves at `n / rate`; the answers, and when each request was due (perf_counter, by n)."""
    answers = Answers()
    # In turn, so that none idles until the server closes it.
    free: deque[Connection] = deque()
    wanted = asyncio.Event()

    def idle(connection: Connection) -> None:
        free.append(connection)
        wanted.set()

    pool = [await _connect(host, port, answers, idle) for _ in range(connections)]
    free.extend(pool)
    total = int(rate * seconds)
    due = array("d")
    began = time.perf_counter() + 0.05
    for n in range(total):
        at = began + n / rate
        wait = at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif n % 64 == 0:
            await asyncio.sleep(0)
        while not free:
            wanted.clear()
            await wanted.wait()
        # Behind plan: the delay counts, so it is measured from when the request was due.
        written = free.popleft().send(make(n))
        due.append(min(at, written) if written - at > 0.001 else written)
    while len(free) < len(pool):
        wanted.clear()
        await asyncio.wait_for(wanted.wait(), 30)
    for connection in pool:
        connection.close()
    return answers, due
