"""The gateway as a process on a real broker: what it accepted is on the log, and keys are in force within a second."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest

from millrace_core import messages, record
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.reader import read_all
from tests.support.gateways import Gateway, platform
from tests.support.waiting import eventually

PROPERTIES = b'{"a": 1e2, "b":1.10, "c":"\\u0000\\/\xc3\xa9", "a":12345678901234567890}'
BODY = b'{"eventType":{"provider":"github","name":"push"},"properties":' + PROPERTIES + b"}"


@pytest.fixture
async def gateway(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Gateway]:
    await create_topics(cluster)
    running = platform(cluster, tmp_path)
    writer = ControlWriter(cluster)
    await writer.start()
    async with aiohttp.ClientSession() as session:
        running.folder.mkdir(parents=True, exist_ok=True)
        running.start("gateway")
        try:
            gateway = Gateway(running, writer, session)
            await gateway.put_key()
            await running.ready()
            yield gateway
        finally:
            running.stop()
            await writer.stop()


async def events_of(cluster: Cluster) -> list[tuple[messages.Event, record.Received]]:
    return [(messages.decode(r.value, messages.Event), r) for r in await read_all(cluster, ["events"])]


async def test_what_was_accepted_is_on_the_log_byte_for_byte(gateway: Gateway, cluster: Cluster) -> None:
    status, answer = await gateway.post(BODY)
    assert status == 202
    ((event, received),) = await events_of(cluster)
    assert event.id == answer["eventId"]
    assert record.payload_bytes(received) == PROPERTIES
    assert received.key == b"e:github/push"
    assert record.header(received, record.ACCOUNT) == b"acc_1"
    assert abs(event.received_at - received.timestamp) < 5_000


async def test_every_accepted_item_of_many_batches_is_there_once(gateway: Gateway, cluster: Cluster) -> None:
    item = orjson.loads(b'{"eventType":{"provider":"p","name":"n"}}')

    async def batch(n: int) -> list[str]:
        items = [item | {"properties": {"n": n * 100 + i}, "orderingKey": str(i % 7)} for i in range(100)]
        status, answer = await gateway.post(items, path="/ingest/event/publish/batch")
        assert status == 200
        assert answer["accepted"] == 100
        return [result["eventId"] for result in answer["results"]]

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(batch(n)) for n in range(20)]
    accepted = [id for task in asked for id in task.result()]
    stored = [event.id for event, _ in await events_of(cluster)]
    assert sorted(stored) == sorted(accepted)


async def test_a_revoked_key_stops_within_a_second(gateway: Gateway) -> None:
    slowest = 0.0
    for n in range(5):
        await gateway.put_key(f"mr_live_{n}", id=f"key_r{n}")
        await eventually(lambda n=n: _accepts(gateway, f"mr_live_{n}"), timeout_s=2.0)  # type: ignore[misc]
        await gateway.revoke_key(id=f"key_r{n}")
        revoked_at = time.monotonic()
        await eventually(lambda n=n: _takes_no_more(gateway, f"mr_live_{n}"), timeout_s=2.0)  # type: ignore[misc]
        slowest = max(slowest, time.monotonic() - revoked_at)
        await eventually(lambda n=n: _refuses(gateway, f"mr_live_{n}"), timeout_s=2.0)  # type: ignore[misc]
    print(f"longest time a revoked key was still accepted: {slowest * 1000:.0f} ms")
    assert slowest <= 1.0


async def _accepts(gateway: Gateway, key: str) -> bool:
    return (await gateway.post(BODY, key=key))[0] == 202


async def _takes_no_more(gateway: Gateway, key: str) -> bool:
    return not await _accepts(gateway, key)


async def _refuses(gateway: Gateway, key: str) -> bool:
    return (await gateway.post(BODY, key=key))[0] == 401


async def test_it_drains_on_sigterm(gateway: Gateway, cluster: Cluster) -> None:
    accepted: list[str] = []
    refused = 0

    async def client() -> None:
        nonlocal refused
        while True:
            try:
                status, answer = await gateway.post(BODY)
            except aiohttp.ClientError:
                refused += 1
                return
            assert status == 202
            accepted.append(answer["eventId"])

    process = gateway.platform.running["gateway"].process
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(client())
        await eventually(lambda: len(accepted) > 200)
        process.send_signal(signal.SIGTERM)
    assert refused == 16
    assert await asyncio.to_thread(process.wait, 20) == 0
    stored = {event.id for event, _ in await events_of(cluster)}
    assert stored >= set(accepted)


async def test_the_surface_is_described_and_measured(gateway: Gateway) -> None:
    await gateway.post(BODY)
    async with gateway.session.get(gateway.platform.url("gateway") + "/openapi.json") as answer:
        assert "/ingest/event/publish" in (await answer.json())["paths"]
    ops = f"http://127.0.0.1:{gateway.platform.running['gateway'].ops_port}"
    async with gateway.session.get(f"{ops}/metrics") as answer:
        text = await answer.text()
    assert 'millrace_gateway_events_total{outcome="accepted"} 1.0' in text
    assert 'route="/ingest/event/publish",status="202",surface="ingest"} 1.0' in text
    assert 'millrace_control_entries{kind="key"} 1.0' in text
