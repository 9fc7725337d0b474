"""Outgoing HTTP/1.1 for the executor and the dispatcher: guarded, bounded, kept alive.

Every connection resolves its host, judges every address (`millrace_core.egress`) and opens a socket to one that was
judged: a literal address, and a name that resolves to another one the second time, are covered by construction. There
are no redirects, no proxies from the environment, no cookies and no decompression: an answer is what came, cut at a
bound. A connection belongs to one account.

It speaks to the parser (`httptools`) directly because a POST through aiohttp costs three times the CPU (docs/adr).
Not here: retries (the caller's schedule), signing, concurrency for an endpoint (lanes).
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools

from millrace_core import egress, limits
from millrace_core.errors import Retry

HEAD_BYTES_MAX = 65_536


class OutgoingFailed(Retry):
    """No whole answer came. `code` says how far it got: `address_refused`, `dns_failed`, `connect_failed`,
    `tls_failed`, `timeout`, `connection_lost` or `bad_response`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Answer:
    """What the other side said. `body` ends at the bound asked for; `is_cut` tells that there was more."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    is_cut: bool = False

    def header(self, name: bytes) -> str | None:
        """The first header of that lower-case name."""
        for key, value in self.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None


class _Connection(asyncio.Protocol):
    """One socket, one request at a time. `ask` may be called again only when `is_reusable`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.is_reusable = False
        self.idle_since = 0.0

    # ── the caller's side ───────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, request: bytes, *, timeout_s: float, read_bytes_max: int, has_body: bool) -> "asyncio.Future[Answer]":
        """Send one request; the future has the answer or OutgoingFailed. Cancelling it closes the connection."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._read_bytes_max = read_bytes_max
        self._has_body = has_body
        self._received = 0
        self._kept = 0
        self._chunks: list[bytes] = []
        self._answer: Answer | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self.is_reusable = False
        waiter = self._waiter = self._loop.create_future()
        self._timer = self._loop.call_later(timeout_s, self._timed_out, timeout_s)
        waiter.add_done_callback(self._done)
        self._transport.write(request)
        return waiter

    def abort(self) -> None:
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    @property
    def has_heard(self) -> bool:
        """Whether any byte of the current answer came: without one a kept-alive connection was simply stale."""
        return self._received > 0

    # ── asyncio's side ──────────────────────────────────────────────────────────────────────────────────────────────
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its shape, not its class

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.abort()  # nothing was asked: such a connection cannot be trusted with the next answer
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("bad_response", "the answer switches to another protocol; answer with plain HTTP/1.1")
        except httptools.HttpParserError as error:
            self._fail("bad_response", f"the answer is not HTTP/1.1: {error}")
        else:
            if self._answer is None and self._received > HEAD_BYTES_MAX:
                self._fail("bad_response", f"the answer's headers are over {HEAD_BYTES_MAX} bytes")

    def eof_received(self) -> bool:
        return False  # close our side too

    def connection_lost(self, error: Exception | None) -> None:
        self.is_reusable = False
        if self._waiter is None or self._waiter.done():
            return
        if self._answer is not None and error is None and self._ends_with_connection():
            self._complete(is_cut=False)
        else:
            how = "reset" if isinstance(error, ConnectionResetError) else "closed"
            far = "in the middle of the answer" if self._received else "before an answer"
            self._fail("connection_lost", f"the connection was {how} {far}")

    # ── the parser's side ───────────────────────────────────────────────────────────────────────────────────────────
    def on_message_begin(self) -> None:
        if self._answer is not None and self._waiter is not None and self._waiter.done():
            self.abort()  # a second answer behind the first: see `data_received`

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer is None:  # trailers are not kept
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._answer = Answer(status, self._headers)
            if not self._has_body:
                self._complete(is_cut=False)
        elif status == 101:
            self._fail("bad_response", "the answer switches to another protocol; answer with plain HTTP/1.1")
        else:
            self._headers = []  # interim: the answer proper follows

    def on_body(self, body: bytes) -> None:
        room = self._read_bytes_max - self._kept
        if len(body) > room:
            self._chunks.append(body[:room])
            self._complete(is_cut=True)
        else:
            self._chunks.append(body)
            self._kept += len(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._has_body:
            self._complete(is_cut=False)

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _ends_with_connection(self) -> bool:
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _complete(self, *, is_cut: bool) -> None:
        if self._waiter is None or self._waiter.done() or self._answer is None:
            return
        self._answer.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._answer.is_cut = is_cut
        transport = self._transport
        self.is_reusable = (
            not is_cut
            and self._has_body
            and self._parser.should_keep_alive()
            and transport is not None
            and not transport.is_closing()
        )
        self._waiter.set_result(self._answer)
        if not self.is_reusable:
            self.abort()

    def _fail(self, code: str, message: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(OutgoingFailed(code, message))
        self.abort()

    def _timed_out(self, timeout_s: float) -> None:
        far = "the answer did not end" if self._answer else "no answer came"
        self._fail("timeout", f"{far} within {timeout_s:.3g} s")

    def _done(self, waiter: "asyncio.Future[Answer]") -> None:
        self._timer.cancel()
        if waiter.cancelled():
            self.abort()


class _Peer(NamedTuple):
    """Whom a kept connection belongs to, and where it leads."""

    account: str
    scheme: str
    host: str
    port: int


class Egress:
    """The one door outward. Safe for concurrent use within a loop; `close` ends what is kept alive.

    At most `kept_max` connections wait for their next request, the longest-waiting is closed first, none waits longer
    than `kept_s`. How many are open at once is the callers' bound (`LANES_IN_FLIGHT_MAX`)."""

    def __init__(
        self,
        *,
        allow: Sequence[egress.Network] = (),
        connect_timeout_s: float = limits.CONNECT_TIMEOUT_S,
        kept_max: int = limits.EGRESS_KEPT_CONNECTIONS_MAX,
        kept_s: float = limits.EGRESS_KEPT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = tuple(allow)
        self._connect_timeout_s = connect_timeout_s
        self._kept_max = kept_max
        self._kept_s = kept_s
        self._tls = tls
        self._kept: OrderedDict[_Connection, _Peer] = OrderedDict()
        self._by_peer: dict[_Peer, list[_Connection]] = {}

    async def send(
        self,
        target: egress.Target,
        *,
        account: str,
        head: bytes,
        body: bytes = b"",
        timeout_s: float,
        read_bytes_max: int = limits.RESPONSE_READ_BYTES_MAX,
    ) -> Answer:
        """Send one request and return its answer, whatever its status. `head` is `egress.request_head`'s.

        Raises OutgoingFailed. May be cancelled at any point. Sends again, once, only where a kept connection turned
        out to be closed before a byte of an answer: so give every request an id that the receiver can know it by."""
        request = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
        peer = _Peer(account, target.scheme, target.host, target.port)
        has_body = not head.startswith(b"HEAD ")
        ends = time.monotonic() + timeout_s
        kept = self._take(peer)
        if kept is not None:
            try:
                return await self._ask(kept, peer, request, timeout_s, read_bytes_max, has_body)
            except OutgoingFailed as failed:
                if failed.code != "connection_lost" or kept.has_heard:
                    raise
        left_s = max(0.001, ends - time.monotonic())
        connection = await self._connect(target, left_s)
        left_s = max(0.001, ends - time.monotonic())
        return await self._ask(connection, peer, request, left_s, read_bytes_max, has_body)

    async def close(self) -> None:
        """Close what is kept alive. Requests under way end by themselves."""
        for connection in list(self._kept):
            connection.abort()
        self._kept.clear()
        self._by_peer.clear()
        await asyncio.sleep(0)

    async def _ask(
        self,
        connection: _Connection,
        peer: _Peer,
        request: bytes,
        timeout_s: float,
        read_bytes_max: int,
        has_body: bool,
    ) -> Answer:
        answer = await connection.ask(request, timeout_s=timeout_s, read_bytes_max=read_bytes_max, has_body=has_body)
        if connection.is_reusable:
            self._keep(connection, peer)
        return answer

    # ── kept connections ────────────────────────────────────────────────────────────────────────────────────────────
    def _take(self, peer: _Peer) -> _Connection | None:
        kept = self._by_peer.get(peer)
        while kept:
            connection = kept.pop()
            if not kept:
                del self._by_peer[peer]
            self._kept.pop(connection, None)
            if connection.is_reusable:
                return connection
        return None

    def _keep(self, connection: _Connection, peer: _Peer) -> None:
        now = time.monotonic()
        connection.idle_since = now
        self._kept[connection] = peer
        self._by_peer.setdefault(peer, []).append(connection)
        oldest = next(iter(self._kept))
        while len(self._kept) > self._kept_max or now - oldest.idle_since > self._kept_s:
            self._drop(oldest)
            oldest = next(iter(self._kept))

    def _drop(self, connection: _Connection) -> None:
        peer = self._kept.pop(connection)
        kept = self._by_peer[peer]
        kept.remove(connection)
        if not kept:
            del self._by_peer[peer]
        connection.abort()

    # ── new connections ─────────────────────────────────────────────────────────────────────────────────────────────
    async def _connect(self, target: egress.Target, timeout_s: float) -> _Connection:
        wait_s = min(timeout_s, self._connect_timeout_s)
        try:
            async with asyncio.timeout(wait_s):
                return await self._open(target, await self._resolve(target))
        except TimeoutError:
            raise OutgoingFailed("timeout", f"no connection to {target.authority} within {wait_s:.3g} s") from None

    async def _resolve(self, target: egress.Target) -> list[tuple[int, tuple[str, int]]]:
        """(family, socket address) of every address, all of which may be connected to."""
        loop = asyncio.get_running_loop()
        try:
            infos = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise OutgoingFailed("dns_failed", f"the name {target.host} was not found: {error}") from None
        found: list[tuple[int, tuple[str, int]]] = []
        for family, _type, _proto, _name, address in infos:
            judged = ipaddress.ip_address(str(address[0]).partition("%")[0])
            why = egress.refusal(judged, self._allow)
            if why is not None:
                raise OutgoingFailed(
                    "address_refused",
                    f"{target.host} resolves to {judged}, which may not be sent to ({why}); "
                    "use a public address or have the operator allow its network (MILLRACE_EGRESS_ALLOW)",
                )
            found.append((family, address))  # type: ignore[arg-type]
        if not found:
            raise OutgoingFailed("dns_failed", f"the name {target.host} has no address")
        return found

    async def _open(self, target: egress.Target, addresses: list[tuple[int, tuple[str, int]]]) -> _Connection:
        loop = asyncio.get_running_loop()
        problem: OSError | None = None
        for family, address in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                return await self._adopt(target, sock)
            except ssl.SSLError as error:
                sock.close()
                raise OutgoingFailed("tls_failed", f"TLS with {target.authority} failed: {error}") from None
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
        raise OutgoingFailed("connect_failed", f"no connection to {target.authority}: {problem}") from None

    async def _adopt(self, target: egress.Target, sock: socket.socket) -> _Connection:
        loop = asyncio.get_running_loop()
        if target.scheme == "http":
            return (await loop.create_connection(lambda: _Connection(loop), sock=sock))[1]
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        made = await loop.create_connection(
            lambda: _Connection(loop), sock=sock, ssl=self._tls, server_hostname=target.host
        )
        return made[1]
