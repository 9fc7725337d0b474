"""A webhook receiver that misbehaves on demand: a real TCP server on 127.0.0.1 whose answer is a script."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass(slots=True)
class Request:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


async def answers_ok(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


def answers(raw: bytes) -> Answer:
    """Always this, byte for byte."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return answer


def answers_status(status: int, *, headers: str = "", body: bytes = b"") -> Answer:
    return answers(f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body)


@dataclass(slots=True)
class Receiver:
    """What came in, and how it is answered; `answer` may be changed while it runs."""

    answer: Answer = answers_ok
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    in_flight: int = 0
    in_flight_max: int = 0

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(head[0], headers, body)
                self.requests.append(request)
                self.in_flight += 1
                self.in_flight_max = max(self.in_flight_max, self.in_flight)
                try:
                    await self.answer(request, writer)
                    await writer.drain()
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def close_connections(self) -> None:
        """Close what is kept alive, as a receiver that restarts does."""
        for writer in list(self._open):
            writer.close()


@asynccontextmanager
async def receiving(answer: Answer = answers_ok, *, host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver that runs as long as the block."""
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, host, 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in list(receiver._open):
            writer.transport.abort()
        await asyncio.wait_for(server.wait_closed(), 5)
