"""uvicorn as one worker of a service: its signals are the service's, its end is a drain.

Told to stop it takes no new connection, answers what is in flight, closes idle connections, and returns. uvloop and
httptools, no access log (a surface counts its own answers). For the services with a surface; the others do not import
this.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from millrace_core import limits
from millrace_core.errors import Fatal

BACKLOG = 2_048
KEEP_ALIVE_S = 75


AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class HttpServer:
    """Bound when made, so the port is known and taken before anything else starts; serves while `run` runs."""

    def __init__(self, app: AsgiApp, *, host: str, port: int) -> None:
        """Raises Fatal when the address cannot be had."""
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            # The service's own bound on the drain comes after it.
            timeout_graceful_shutdown=int(limits.SHUTDOWN_S_MAX) - 2,
        )
        self._server = _Server(config)

    async def run(self, stop: asyncio.Event) -> None:
        """The worker."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._server.serve(sockets=[self._socket]), name="uvicorn")
            watching = group.create_task(self._watch(stop), name="uvicorn stop")
            await asyncio.wait([serving])
            watching.cancel()

    def close(self) -> None:
        """Give the port back where `run` never came to do so. Safe to repeat."""
        self._socket.close()

    def ready(self) -> str | None:
        """None when requests are answered."""
        return None if self._server.started and not self._server.should_exit else "not listening"

    async def _watch(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._server.should_exit = True


async def answer(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """The whole answer to a request. Where `send` is this server's own, with no layer around it that wants to see the
    messages, it is written as it is: what ASGI's two messages cost is a tenth of a small request. `headers` are lower
    case, without line breaks, and have a `content-length`."""
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and not cycle.flow.write_paused and cycle.scope["method"] != "HEAD":
        if not cycle.disconnected:
            _write_whole(cycle, status, headers, body)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _write_whole(cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """What uvicorn does on the two messages of an answer, in its order."""
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
        raise RuntimeError("a header of this answer holds a line break")
    close = b"" if cycle.keep_alive else b"connection: close\r\n"
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((STATUS_LINE[status], head, close, b"\r\n", body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


class _Joined(asyncio.Transport):
    """A transport on which what is written within one turn of the loop leaves as one piece. uvicorn writes an answer's
    head and its body apart and uvloop sends each at once: a system call each, at the price of all else about a small
    answer, and two wake-ups of whoever reads it."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        for name in ("get_extra_info", "is_closing", "pause_reading", "resume_reading", "set_protocol"):
            setattr(self, name, getattr(transport, name))

    def write(self, data: Any) -> None:
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(_Joined(transport, self.loop))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the service."""
        yield


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise Fatal(f"cannot listen on {host}:{port}: {error.strerror}; choose another MILLRACE_HTTP_PORT") from None
    return bound
