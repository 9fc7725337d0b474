"""A service as a process: ready, drained, broken, hung, and what its exit code says."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

BOUND_S = 20.0


@dataclass
class Tiny:
    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, event: str) -> dict[str, Any]:
        """The first line with that event."""
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            while raw := await self.process.stdout.readline():
                self.lines.append(orjson.loads(raw))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"no {event} among {[line['event'] for line in self.lines]}")

    async def exit_code(self) -> int:
        assert self.process.stdout is not None
        async with asyncio.timeout(BOUND_S):
            self.lines += [orjson.loads(raw) async for raw in self.process.stdout]
            return await self.process.wait()

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


@asynccontextmanager
async def tiny(*arguments: str, **env: str) -> AsyncIterator[Tiny]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.tiny_service",
        *arguments,
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Tiny(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def test_ready_then_drained_on_sigterm() -> None:
    async with tiny("drains") as service:
        port = (await service.until("service.ready"))["ops_port"]
        assert await get(port, "/livez") == (200, b'{"service":"tiny","live":true}')
        assert await get(port, "/readyz?x") == (200, b'{"service":"tiny","ready":true,"reasons":{}}')
        assert b"millrace_service_ready 1.0" in (await get(port, "/metrics"))[1]
        assert (await get(port, "/livez", "HEAD")) == (200, b"")
        assert (await get(port, "/livez", "POST"))[0] == 405
        assert (await get(port, "/other"))[0] == 404
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert service.events.index("stack.closed") > service.events.index("worker.drained")
        assert service.events[-1] == "service.stopped"
        drained = next(line for line in service.lines if line["event"] == "worker.drained")
        assert drained["reasons"] == {"service": "draining"}, "not ready before anything ends"


async def test_not_ready_says_why() -> None:
    async with tiny("unready") as service:
        port = (await service.until("service.started"))["ops_port"]
        status, body = await get(port, "/readyz")
        assert status == 503
        assert b"waits for its partition" in body or b"starting" in body
        assert (await get(port, "/livez"))[0] == 200


@pytest.mark.parametrize(("behaviour", "says"), [("raises", "broke"), ("ends", "ended though nobody asked")])
async def test_a_broken_worker_ends_the_process(behaviour: str, says: str) -> None:
    async with tiny(behaviour) as service:
        assert await service.exit_code() == 1
        failed = [line for line in service.lines if line["event"] == "service.failed"]
        assert len(failed) == 1
        assert says in failed[0]["error"]
        assert "secretsecret" not in orjson.dumps(failed).decode()
        assert "stack.closed" in service.events


async def test_a_worker_that_does_not_drain_is_cut_off() -> None:
    async with tiny("hangs", "0.3") as service:
        await service.until("service.ready")
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 1
        assert "did not drain" in next(line["error"] for line in service.lines if line["event"] == "service.failed")


async def test_a_second_signal_does_not_wait() -> None:
    async with tiny("hangs") as service:
        await service.until("service.ready")
        service.process.send_signal(signal.SIGINT)
        await service.until("service.draining")
        service.process.send_signal(signal.SIGINT)
        assert await service.exit_code() == 1


async def test_it_can_be_stopped_while_it_is_wired() -> None:
    async with tiny("never-wired") as service:
        await service.until("service.started")
        service.process.send_signal(signal.SIGTERM)
        assert await service.exit_code() == 0


async def test_wrong_settings_are_exit_2() -> None:
    async with tiny("drains", MILLRACE_OPS_PORT="many") as service:
        assert await service.exit_code() == 2
        assert service.process.stderr is not None
        assert b"MILLRACE_OPS_PORT" in await service.process.stderr.read()


async def test_a_slow_or_endless_ops_request_hurts_nobody() -> None:
    async with tiny("drains") as service:
        port = (await service.until("service.ready"))["ops_port"]
        _, slow = await asyncio.open_connection("127.0.0.1", port)
        slow.write(b"GET /livez HT")
        reader, endless = await asyncio.open_connection("127.0.0.1", port)
        endless.write(b"x" * 100_000)
        assert (await get(port, "/livez"))[0] == 200
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b"", "closed without an answer"
        slow.close()
        endless.close()
