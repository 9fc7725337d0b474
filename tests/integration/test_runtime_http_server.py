"""How an answer leaves the server: in one piece where it is made in one go, in order and whole in any case."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from millrace_runtime.http_server import HttpServer, answer

App = Callable[[Any, Any, Any], Awaitable[None]]


CLOSING = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@asynccontextmanager
async def _asked(app: App, client: socket.socket, requests: bytes = CLOSING) -> AsyncIterator[bytes]:
    """What comes back until the server closes the connection, as the last request tells it to."""
    server, stop, loop = HttpServer(app, host="127.0.0.1", port=0), asyncio.Event(), asyncio.get_running_loop()
    client.setblocking(False)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(server.run(stop))
        while server.ready() is not None:
            await asyncio.sleep(0)
        await loop.sock_connect(client, ("127.0.0.1", server.port))
        await loop.sock_sendall(client, requests)
        came = b""
        while piece := await loop.sock_recv(client, 65_536):
            came += piece
        yield came
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


def _whole(body: bytes = b"whole", status: int = 200, *more: tuple[bytes, bytes]) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, status, [(b"content-length", b"%d" % len(body)), *more], body)

    return app


def _in_two(app: App) -> App:
    """A layer that wants to see the messages."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        async def seen(message: Any) -> None:
            await send(message)

        await app(scope, receive, seen)

    return layer


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
@pytest.mark.parametrize("status", [200, 202, 404, 503])
async def test_an_answer_written_whole_is_the_answer_of_two_messages(method: bytes, status: int) -> None:
    app = _whole(b"whole", status, (b"x-request-id", b"req_1"))
    requests = b"%b / HTTP/1.1\r\nhost: x\r\n\r\n" % method + CLOSING.replace(b"GET", method)
    answers = []
    for each in (app, _in_two(app)):
        with socket.socket() as client:
            async with _asked(each, client, requests) as came:
                answers.append([line for line in came.split(b"\r\n") if not line.startswith(b"date: ")])
    assert answers[0] == answers[1]
    assert answers[0].count(b"x-request-id: req_1") == 2
    assert answers[0].count(b"connection: close") == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].encode()
        await asyncio.sleep(0)
        await answer(send, 200, [(b"content-length", b"%d" % len(path))], path)

    requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in range(5))
    with socket.socket() as client:
        async with _asked(app, client, requests + CLOSING.replace(b"GET /", b"GET /last")) as came:
            bodies = [part.partition(b"HTTP/1.1")[0] for part in came.split(b"\r\n\r\n")[1:]]
    assert bodies == [b"/0", b"/1", b"/2", b"/3", b"/4", b"/last"]


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
async def test_a_line_break_in_a_header_is_never_written(value: bytes) -> None:
    with socket.socket() as client:
        async with _asked(_whole(b"whole", 200, (b"x-request-id", value)), client) as came:
            assert came.startswith(b"HTTP/1.1 500 ")
            assert b"whole" not in came


async def test_a_server_that_never_ran_gives_its_port_back() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    first = HttpServer(app, host="127.0.0.1", port=0)
    first.close()
    HttpServer(app, host="127.0.0.1", port=first.port).close()
