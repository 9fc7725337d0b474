"""The development proxy in front of small servers on this machine: routing, streaming, and what goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from millrace_devstack import front, ports
from tests.support.waiting import eventually

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _proxy(
    *, gateway: Handler | None = None, api: Handler | None = None, reasons: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    async def not_ready() -> Mapping[str, str]:
        return reasons or {}

    async with AsyncExitStack() as stack:
        upstreams = {}
        for name, handler in (("gateway", gateway), ("api", api)):
            if handler is None:
                upstreams[name] = ports.free_port()
                continue
            server = await asyncio.start_server(handler, "127.0.0.1", 0)
            stack.callback(server.close)
            upstreams[name] = server.sockets[0].getsockname()[1]
        async with asyncio.TaskGroup() as tasks, front.Front(upstreams, not_ready, tasks).serve(0) as port:
            yield port


async def _head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def _ok(body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), more, body)


def _named(name: bytes) -> Handler:
    """Answers every request on the connection with its name and the request line's target."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await _head(reader)
                writer.write(_ok(name + b" " + head.split(b" ")[1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return serve


async def _ask(port: int, request: bytes, *, until: Callable[[bytes], bool] | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            if until is None:
                return await reader.read(-1)
            got = b""
            while not until(got):
                piece = await reader.read(65_536)
                assert piece, got
                got += piece
            return got
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("target", "service"),
    [
        (b"/ingest/event/publish", b"gateway"),
        (b"/ingest/event/publish/batch?x=/v1", b"gateway"),
        (b"/v1/events/fire", b"gateway"),
        (b"/v1/triggers/trg_1/fire?token=a", b"gateway"),
        (b"/v1/triggers/trg_1", b"api"),
        (b"/v1/events", b"api"),
        (b"/", b"api"),
        (b"/docs?next=/ingest/", b"api"),
        (b"/forms/AbC-_0123456789x/thanks", b"api"),
        (b"/v1/customers/a%2Fb?q=%7E", b"api"),
    ],
)
async def test_a_path_goes_to_its_service_byte_for_byte(target: bytes, service: bytes) -> None:
    async with _proxy(gateway=_named(b"gateway"), api=_named(b"api")) as port:
        answer = await _ask(port, b"GET %b HTTP/1.1\r\nconnection: close\r\n\r\n" % target)
    assert answer.endswith(b"\r\n\r\n%b %b" % (service, target))


async def test_requests_sent_ahead_are_answered_in_order_on_kept_connections() -> None:
    accepted: list[int] = []
    named = _named(b"api")

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(1)
        await named(reader, writer)

    async with _proxy(gateway=_named(b"gateway"), api=counted) as port:
        requests = (
            b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /ingest/c HTTP/1.1\r\n\r\nGET /d HTTP/1.1\r\n\r\n"
        )
        answer = await _ask(port, requests, until=lambda got: got.count(b"HTTP/1.1 200") == 4 and b"/d" in got)
    assert [answer.index(part) for part in (b"api /a", b"api /b", b"gateway /ingest/c", b"api /d")] == sorted(
        answer.index(part) for part in (b"api /a", b"api /b", b"gateway /ingest/c", b"api /d")
    )
    assert len(accepted) == 1


async def test_a_large_body_arrives_whole_and_a_large_answer_too() -> None:
    body = bytes(range(256)) * 20_000

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(_ok(await reader.readexactly(len(body))))
        await writer.drain()
        writer.close()

    async with _proxy(api=mirror) as port:
        request = b"POST /x HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        answer = await _ask(port, request)
    assert answer.partition(b"\r\n\r\n")[2] == body


async def test_a_chunked_body_is_passed_as_it_came() -> None:
    chunked = b"4\r\nwiki\r\n0\r\n\r\n"

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _head(reader)
        assert b"Transfer-Encoding: chunked" in head
        writer.write(_ok(await reader.readexactly(len(chunked)), b"connection: close\r\n"))
        writer.close()

    async with _proxy(api=mirror) as port:
        answer = await _ask(port, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
    assert answer.endswith(chunked)


async def test_an_event_stream_arrives_piece_by_piece_and_ends_with_its_reader() -> None:
    left = asyncio.Event()
    more = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"7\r\ndata: 1\r\n")
        await more.wait()
        writer.write(b"7\r\ndata: 2\r\n")
        assert await reader.read(1) == b""
        left.set()
        writer.close()

    async with _proxy(api=stream) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"data: 1" in await reader.readuntil(b"data: 1")
            more.set()
            assert b"data: 2" in await reader.readuntil(b"data: 2")
            writer.close()
            await left.wait()


async def test_an_answer_before_the_body_ends_reaches_a_client_that_goes_on_sending() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        while await reader.read(65_536):
            pass
        writer.close()

    async with _proxy(api=refuse) as port:
        body = b"x" * 3_000_000
        answer = await _ask(port, b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(b"no")


async def test_an_interim_answer_is_passed_before_the_final_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(_ok(await reader.readexactly(2), b"connection: close\r\n"))
        writer.close()

    async with _proxy(api=serve) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        async with asyncio.timeout(5):
            assert await _head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"ok")
            assert (await reader.read(-1)).endswith(b"\r\n\r\nok")
        writer.close()


async def test_a_service_that_is_away_is_a_503_that_says_so() -> None:
    async with _proxy() as port:
        answer = await _ask(port, b"POST /ingest/x HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the gateway is not running" in answer
    assert b"retry-after: 1" in answer


async def test_a_service_that_dies_with_the_request_is_a_503_that_says_it_may_have_been_done() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.close()

    async with _proxy(gateway=die) as port:
        answer = await _ask(port, b"POST /ingest/x HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"may have been carried out" in answer


async def test_a_kept_connection_that_the_service_closed_is_not_used_again() -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        writer.write(_ok(b"once"))
        await writer.drain()
        writer.close()

    async with _proxy(api=once) as port:
        for _ in range(3):
            answer = await _ask(port, b"GET / HTTP/1.1\r\n\r\n", until=lambda got: got.endswith(b"once"))
            assert answer.startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0)


@pytest.mark.parametrize(("reasons", "status"), [({}, b"200"), ({"matcher": "no partitions yet"}, b"503")])
async def test_readyz_is_the_whole_platforms(reasons: dict[str, str], status: bytes) -> None:
    async with _proxy(reasons=reasons) as port:
        answer = await _ask(port, b"GET /readyz HTTP/1.1\r\n\r\n", until=lambda got: got.endswith(b"}"))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"no partitions yet" in answer) == bool(reasons)


async def test_what_is_not_http_is_refused() -> None:
    async with _proxy() as port:
        assert (await _ask(port, b"\x16\x03\x01 hello\r\n\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_client_that_leaves_takes_its_request_along() -> None:
    left = asyncio.Event()
    came = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _head(reader)
        came.set()
        await reader.read(1)
        left.set()
        writer.close()

    async with _proxy(api=wait) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            await came.wait()
            writer.close()
            await left.wait()
    await eventually(left.is_set)
