"""The gateway while its broker is silent, away, or not there yet: nothing lost, nothing hung, every answer useful."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from millrace_core import limits
from millrace_devstack.kafka import Kafka, Proxied
from millrace_devstack.ports import free_port
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.reader import read_all
from tests.support.gateways import Gateway, platform
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

BODY = {"eventType": {"provider": "p", "name": "n"}}
BATCH = "/ingest/event/publish/batch"


@dataclass
class Behind:
    """A gateway that reaches its broker through a proxy, and the way around it."""

    kafka: Kafka
    proxy: TcpProxy
    direct: Cluster
    gateway: Gateway

    async def stored(self) -> set[str]:
        return {str(dict(r.headers)["id"].decode()) for r in await read_all(self.direct, ["events"])}


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    listener = free_port()
    async with TcpProxy(listener) as proxy:
        kafka = Kafka(tmp_path / "kafka", proxied=Proxied(listener, proxy.port), heap="320m")
        await kafka.start()
        direct = Cluster(kafka.bootstrap, f"t{secrets.token_hex(4)}")
        await create_topics(direct)
        running = platform(Cluster(f"127.0.0.1:{proxy.port}", direct.namespace), tmp_path)
        writer = ControlWriter(direct)
        await writer.start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            running.start("gateway")
            gateway = Gateway(running, writer, session)
            try:
                await gateway.put_key()
                await running.ready()
                yield Behind(kafka, proxy, direct, gateway)
            finally:
                proxy.heal()
                running.stop()
                await writer.stop()
                await kafka.kill()


async def accepts(gateway: Gateway) -> bool:
    return (await gateway.post(BODY))[0] == 202


async def test_a_silent_broker_fills_the_bound_and_then_everything_is_said(behind: Behind) -> None:
    gateway = behind.gateway
    batch = [BODY] * limits.BATCH_ITEMS_MAX
    fits = limits.GATEWAY_IN_FLIGHT_MAX // limits.BATCH_ITEMS_MAX
    assert await accepts(gateway)
    behind.proxy.hold()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(gateway.post(batch, path=BATCH)) for _ in range(fits + 1)]
        done, held = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert len(held) == fits
        status, answer = done.pop().result()
        assert (status, answer["code"]) == (503, "OVERLOADED")
        assert (await gateway.readiness())[0] in (200, 503)
    for task in held:
        status, answer = task.result()
        assert (status, answer["code"]) == (503, "NOT_CONFIRMED")
        assert "uniqueKey" in answer["message"]
    assert (await gateway.readiness())[0] == 503
    behind.proxy.heal()
    await eventually(lambda: accepts(gateway), timeout_s=30)
    await eventually(lambda: _is_ready(gateway), timeout_s=10)


async def _is_ready(gateway: Gateway) -> bool:
    return (await gateway.readiness())[0] == 200


async def test_a_killed_broker_is_503_and_what_was_accepted_survives(behind: Behind) -> None:
    gateway = behind.gateway
    accepted: list[str] = []
    refused: list[int] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            status, answer = await gateway.post(BODY)
            if status == 202:
                accepted.append(answer["eventId"])
            else:
                assert status == 503
                assert answer["message"]
                refused.append(status)
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
        await eventually(lambda: len(accepted) > 100)
        await behind.kafka.kill()
        await eventually(lambda: len(refused) > 20, timeout_s=30)
        before = len(accepted)
        await behind.kafka.start()
        await eventually(lambda: len(accepted) > before + 100, timeout_s=60)
        stop.set()
    assert await behind.stored() >= set(accepted)


async def test_it_starts_before_its_broker(behind: Behind) -> None:
    gateway = behind.gateway
    await behind.proxy.cut()
    gateway.platform.kill("gateway")
    gateway.platform.restart("gateway")
    await eventually(lambda: _says(gateway), timeout_s=20)
    behind.proxy.heal()
    await eventually(lambda: accepts(gateway), timeout_s=30)


async def _says(gateway: Gateway) -> bool:
    try:
        status, answer = await gateway.post(BODY)
    except aiohttp.ClientError:
        return False
    assert (status, answer["code"]) == (503, "UNAVAILABLE")
    assert "nothing was taken" in answer["message"] or "Keys cannot be checked" in answer["message"]
    return True
