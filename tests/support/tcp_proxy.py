"""A TCP proxy between a client and its server that a test can cut, hold or slow down.

For Kafka the broker must advertise the proxy's port: `Kafka(home, proxied=Proxied(port, advertised_port))`.
"""

import asyncio
import contextlib

CHUNK_BYTES = 65_536
LOCALHOST = "127.0.0.1"


class TcpProxy:
    """Passes bytes to `upstream_port` of this machine. `delay_s` holds every chunk back that long, each way."""

    def __init__(self, upstream_port: int, *, port: int = 0, delay_s: float = 0.0) -> None:
        self.upstream_port = upstream_port
        self.delay_s = delay_s
        self._port = port
        self._server: asyncio.Server | None = None
        self._open = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self._port

    async def start(self) -> None:
        """Listen. The port is known after that."""
        self._server = await asyncio.start_server(self._accept, LOCALHOST, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
            await self._drop()
            await self._server.wait_closed()
            self._server = None

    async def cut(self) -> None:
        """Drop every connection and close every new one at once, until `heal`."""
        self._open = False
        await self._drop()

    def hold(self) -> None:
        """Pass nothing on, without closing anything, until `heal`: the network that just goes silent."""
        self._flowing.clear()

    def heal(self) -> None:
        """Pass everything again."""
        self._open = True
        self._flowing.set()

    async def __aenter__(self) -> "TcpProxy":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _drop(self) -> None:
        # A task that is being awaited here removes itself from the set.
        dropped = list(self._connections)
        for task in dropped:
            task.cancel()
        if dropped:
            await asyncio.wait(dropped)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if self._open:
                await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(LOCALHOST, self.upstream_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, upstream_writer))
                both.create_task(self._pump(upstream_reader, writer))
        except* OSError:
            pass
        finally:
            upstream_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._flowing.wait()
            target.write(chunk)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof()
