"""One port for gateway and API in development: a reverse proxy that passes bytes through as they come.

Where a path goes is `route`, the same split the Ingress makes in Kubernetes. Bodies and event streams are passed on
piece by piece with back-pressure; a client that goes away takes its request's connection to the service with it. The
service sees the target, the headers and the body byte for byte, so signatures over them hold. `/readyz` is the whole
platform's. Not here: TLS, retries (a POST may have been done; the client decides).
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import cast

from millrace_devstack import http1
from millrace_devstack.ports import HOST

GATEWAY = "gateway"
API = "api"
# Shorter than the services' own keep-alive (uvicorn: 5 s), so that no request meets a connection just being closed.
IDLE_S_MAX = 2.0
CONNECT_S_MAX = 2.0
DISCARD_S_MAX = 10.0
BUFFER_BYTES_MAX = 262_144

Reasons = Callable[[], Awaitable[Mapping[str, str]]]


def route(path: bytes) -> str:
    """The service that answers a path (without its query)."""
    if path.startswith(b"/ingest/") or path == b"/v1/events/fire":
        return GATEWAY
    if path.startswith(b"/v1/triggers/") and path.endswith(b"/fire"):
        return GATEWAY
    return API


class Front:
    """The proxy. `ports` names each upstream's port, `not_ready` the reasons (by service) why one is not ready, `tasks`
    owns what it does on the side."""

    def __init__(self, ports: Mapping[str, int], not_ready: Reasons, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._ports = ports
        self._not_ready = not_ready
        self._idle: dict[str, list[_Upstream]] = {name: [] for name in ports}
        self._clients: set[_Client] = set()

    @asynccontextmanager
    async def serve(self, port: int) -> AsyncIterator[int]:
        """Listen while inside; gives the port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Client(self), HOST, port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for client in list(self._clients):
                client.abort()
            for upstream in [one for idle in self._idle.values() for one in idle]:
                upstream.abort()

    def begin(self, client: "_Client", name: str) -> None:
        """Find a connection to the service and hand it to the client (`joined`), or answer for it."""
        idle = self._idle[name]
        while idle:
            upstream = idle.pop()
            if upstream.wake():
                client.joined(upstream)
                return
        self._tasks.create_task(self._connect(client, name))

    def ask_readiness(self, client: "_Client") -> None:
        """Answer `/readyz`."""
        self._tasks.create_task(self._readiness(client))

    async def _connect(self, client: "_Client", name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                _, upstream = await loop.create_connection(lambda: _Upstream(self, name), HOST, self._ports[name])
        except (OSError, TimeoutError):
            client.refuse(503, f"the {name} is not running at this moment; it is being restarted, try again")
            return
        if client.gone:
            upstream.abort()
        else:
            client.joined(upstream)

    async def _readiness(self, client: "_Client") -> None:
        reasons = await self._not_ready()
        client.answer(503 if reasons else 200, {"ready": not reasons, "reasons": dict(reasons)})

    def came(self, client: "_Client") -> None:
        self._clients.add(client)

    def went(self, client: "_Client") -> None:
        self._clients.discard(client)

    def rest(self, upstream: "_Upstream", name: str) -> None:
        """Keep a connection for the next request."""
        self._idle[name].append(upstream)

    def forget(self, upstream: "_Upstream", name: str) -> None:
        if upstream in self._idle[name]:
            self._idle[name].remove(upstream)


class _Peer(asyncio.Protocol):
    """What both ends share: a transport, and reading that stops while the other end cannot write."""

    transport: asyncio.Transport
    peer: "_Peer | None" = None
    gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES_MAX)

    def pause_writing(self) -> None:
        if self.peer is not None and not self.peer.gone:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.gone:
            self.peer.transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.gone = True
        self.transport.abort()


class _Client(_Peer):
    """One connection of a client. One request at a time; what comes early waits."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._waiting = b""
        self._body: http1.Body | None = None
        self._busy = False
        self._tunnel = False
        self._closing = False
        self._head_bytes = 0
        self._unwanted: http1.Body | None = None
        self.method = b""
        self.peer: _Upstream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._front.came(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._front.went(self)
        if self.peer is not None:
            self.peer.abort()

    def data_received(self, data: bytes) -> None:
        if self._unwanted is not None:
            self._take_unwanted(data)
            return
        if self._tunnel and self.peer is not None:
            self.peer.transport.write(data)
            return
        self._waiting = self._waiting + data if self._waiting else data
        try:
            self._advance()
        except http1.MalformedError as error:
            self.refuse(400, str(error))

    def joined(self, upstream: "_Upstream") -> None:
        """The connection for the request being read: pass on what waits for it."""
        self.peer = upstream
        upstream.serve(self)
        self.transport.resume_reading()
        self.data_received(b"")

    def finished(self, *, keep: bool) -> None:
        """The response has been passed on whole."""
        whole = self.sent_whole()
        self.peer = None
        self._busy = False
        body, self._body = self._body, None
        if not whole:
            self._discard(body)
            return
        if self._closing or not keep:
            self.transport.close()
            return
        self.transport.resume_reading()
        if self._waiting:
            self.data_received(b"")

    def sent_whole(self) -> bool:
        """Whether the request was passed on to its end; a service may answer before that."""
        return self._body is None or (self._body.done and not self._head_bytes)

    def tunnel(self) -> None:
        """The response was 101: from now on bytes only."""
        self._tunnel = True

    def refuse(self, status: int, message: str) -> None:
        """Answer in the service's place, and close."""
        self._closing = True
        self.answer(status, {"success": False, "message": message})

    def answer(self, status: int, body: Mapping[str, object]) -> None:
        """Send a response of our own."""
        if self.gone:
            return
        reason = {200: "OK", 400: "Bad Request", 431: "Request Header Fields Too Large"}.get(status, "Unavailable")
        payload = b"" if self.method == b"HEAD" else json.dumps(body).encode()
        more = "retry-after: 1\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n{more}"
        )
        closing = "connection: close\r\n" if self._closing else ""
        self.transport.write(f"{head}{closing}\r\n".encode() + payload)
        self.finished(keep=True)

    def _discard(self, body: http1.Body | None) -> None:
        # Closing on bytes unread would make the kernel reset the connection, and the client lose its answer.
        assert body is not None
        self._unwanted = body
        asyncio.get_running_loop().call_later(DISCARD_S_MAX, self.transport.close)
        self.transport.resume_reading()
        waiting, self._waiting = self._waiting[self._head_bytes :], b""
        self._take_unwanted(waiting)

    def _take_unwanted(self, data: bytes) -> None:
        assert self._unwanted is not None
        with contextlib.suppress(http1.MalformedError):
            self._unwanted.take(data)
            if not self._unwanted.done:
                return
        self.transport.close()

    def _advance(self) -> None:
        if not self._busy:
            self._read_head()
        elif self.peer is not None and not self.sent_whole():
            self._pass_body()
        elif len(self._waiting) > BUFFER_BYTES_MAX:
            self.transport.pause_reading()

    def _read_head(self) -> None:
        end = self._waiting.find(http1.END_OF_HEAD)
        if end < 0:
            if len(self._waiting) > http1.HEAD_BYTES_MAX:
                self.refuse(431, "the head of this request is too long")
            return
        head = http1.parse_head(self._waiting[:end])
        self._busy = True
        self.method = head.first[0]
        path = head.first[1].partition(b"?")[0]
        if path == b"/readyz":
            self._waiting = self._waiting[end + len(http1.END_OF_HEAD) :]
            self._front.ask_readiness(self)
            return
        self._body = http1.request_body(head)
        self._closing = head.close and not head.upgrade
        self._head_bytes = end + len(http1.END_OF_HEAD)
        # Nothing more is read until there is somebody to pass it to.
        self.transport.pause_reading()
        self._front.begin(self, route(path))

    def _pass_body(self) -> None:
        assert self._body is not None
        assert self.peer is not None
        head, self._head_bytes = self._head_bytes, 0
        taken = head + self._body.take(self._waiting[head:] if head else self._waiting)
        self.peer.transport.write(self._waiting[:taken])
        self._waiting = self._waiting[taken:]


class _Upstream(_Peer):
    """One connection to a service, lent to one client at a time."""

    def __init__(self, front: Front, name: str) -> None:
        self._front = front
        self._name = name
        self._head = b""
        self._body: http1.Body | None = None
        self._close = False
        self._idle: asyncio.TimerHandle | None = None
        self.peer: _Client | None = None

    def serve(self, client: _Client) -> None:
        """Take a client's request."""
        self.peer = client
        self._head = b""
        self._body = None

    def wake(self) -> bool:
        """Leave the pool. False: it is closed already."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        return not self.gone and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        client = self.peer
        if client is None:
            # A service that speaks unasked is closing the connection.
            self.abort()
            return
        try:
            self._pass(client, data)
        except http1.MalformedError:
            self.abort()
            client.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.gone = True
        self._front.forget(self, self._name)
        client, self.peer = self.peer, None
        if client is None or client.gone:
            return
        if self._body is None and not self._head:
            client.peer = None
            client.refuse(
                503,
                f"the {self._name} ended before it answered; the request may have been carried out, "
                "try again with the same uniqueKey or Idempotency-Key",
            )
        elif isinstance(self._body, http1.UntilClose):
            client.finished(keep=False)
        else:
            client.abort()

    def _pass(self, client: _Client, data: bytes) -> None:
        while data and self._body is None:
            data = self._pass_head(client, data)
        if self._body is None:
            return
        taken = self._body.take(data)
        if taken:
            client.transport.write(data if taken == len(data) else data[:taken])
        if self._body.done:
            self._release(client, keep=not self._close and taken == len(data))

    def _pass_head(self, client: _Client, data: bytes) -> bytes:
        """Pass a head on, once it is whole; what follows it is left. An interim response leaves no body behind."""
        self._head += data
        end = self._head.find(http1.END_OF_HEAD)
        if end < 0:
            if len(self._head) > http1.HEAD_BYTES_MAX:
                raise http1.MalformedError("the head is too long")
            return b""
        end += len(http1.END_OF_HEAD)
        head = http1.parse_head(self._head[: end - len(http1.END_OF_HEAD)])
        rest, whole = self._head[end:], self._head[:end]
        self._head = b""
        client.transport.write(whole)
        status = head.first[1]
        if status.startswith(b"1") and status != b"101":
            return rest
        if status == b"101":
            client.tunnel()
        self._close = head.close
        self._body = http1.response_body(head, method=client.method)
        return rest

    def _release(self, client: _Client, *, keep: bool) -> None:
        self.peer = None
        whole = client.sent_whole()
        if keep and whole:
            self.transport.resume_reading()
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(IDLE_S_MAX, self.transport.close)
            self._front.rest(self, self._name)
        else:
            self.transport.close()
        client.finished(keep=not self._close)
