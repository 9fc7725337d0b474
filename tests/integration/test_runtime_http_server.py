"""How an answer leaves the server: in one piece where it is made in one go, in order and whole in any case."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from millrace_runtime.http_server import HttpServer

App = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def _asked(app: App, client: socket.socket) -> AsyncIterator[bytes]:
    """The answer to one request, after which the server closes the connection."""
    server, stop, loop = HttpServer(app, host="127.0.0.1", port=0), asyncio.Event(), asyncio.get_running_loop()
    client.setblocking(False)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run(stop))
        while server.ready() is not None:
            await asyncio.sleep(0)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := await loop.sock_recv(client, 65_536):
            answer += piece
        yield answer
        stop.set()


async def test_the_head_does_not_leave_before_the_body() -> None:
    arrived: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        try:
            arrived.append(client.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            arrived.append(b"")
        await send({"type": "http.response.body", "body": b"whole"})

    with socket.socket() as client:
        async with _asked(app, client) as answer:
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nwhole")
    assert arrived == [b""]


async def test_a_stream_arrives_whole() -> None:
    parts = [b"%d" % n * 40_000 for n in range(5)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = str(sum(map(len, parts))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", size)]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    with socket.socket() as client:
        async with _asked(app, client) as answer:
            assert answer.partition(b"\r\n\r\n")[2] == b"".join(parts)


async def test_a_server_that_never_ran_gives_its_port_back() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    first = HttpServer(app, host="127.0.0.1", port=0)
    first.close()
    HttpServer(app, host="127.0.0.1", port=first.port).close()
