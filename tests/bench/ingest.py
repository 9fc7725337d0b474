"""Ingest: one gateway process beside the bare ASGI route, and batches beside a producer's bare `send` loop."""

import asyncio
import json

from millrace_core import event, ids
from tests.bench.load import event_body, request, saturate
from tests.bench.report import Figure, figure, percentile
from tests.bench.stack import Stack
from tests.bench.world import furnish

CONNECTIONS = 64
PATH = "/ingest/event/publish"


async def single(stack: Stack, *, rounds: int, seconds: float) -> list[Figure]:
    """Requests a second at 64 connections, alternating ours and the limit."""
    ours: list[float] = []
    limits: list[float] = []
    p99: list[float] = []
    platform = await stack.platform()
    key = await furnish(platform)
    platform.start("gateway")
    await platform.ready()
    gateway_port = platform.running["gateway"].http_port
    assert gateway_port is not None
    prefix = await stack.limit_topics()
    process, limit_port = await stack.limit_gateway(prefix)

    def make(n: int) -> bytes:
        return request(PATH, event_body(n), key)

    try:
        for port in (gateway_port, limit_port):
            await saturate("127.0.0.1", port, make, connections=CONNECTIONS, seconds=1)
        for _ in range(rounds):
            answers, took = await saturate("127.0.0.1", gateway_port, make, connections=CONNECTIONS, seconds=seconds)
            assert answers.refused == 0, answers.last_refusal
            ours.append(answers.ok / took)
            p99.append(percentile(answers.latency_s, 0.99) * 1000)
            answers, took = await saturate("127.0.0.1", limit_port, make, connections=CONNECTIONS, seconds=seconds)
            limits.append(answers.ok / took)
    finally:
        stack.end(process)
        platform.stop()
    return [
        figure("ingest single", "requests/s", ours, limit=limits, bar=0.75, against="ratio"),
        figure("ingest single p99 at 64 connections", "ms", p99, bar=25, better="less"),
    ]


async def batch(stack: Stack, *, rounds: int, seconds: float, items: int = 500) -> list[Figure]:
    """Events a second in batches, beside one producer's send loop with the record ours writes."""
    ours: list[float] = []
    limits: list[float] = []
    platform = await stack.platform()
    key = await furnish(platform)
    platform.start("gateway")
    await platform.ready()
    port = platform.running["gateway"].http_port
    assert port is not None
    body = b"[" + b",".join(event_body(n) for n in range(items)) + b"]"
    whole = request(PATH + "/batch", body, key)
    record = _record()
    prefix = await stack.limit_topics()
    try:
        await saturate("127.0.0.1", port, lambda _: whole, connections=4, seconds=1)
        for _ in range(rounds):
            answers, took = await saturate("127.0.0.1", port, lambda _: whole, connections=4, seconds=seconds)
            assert answers.refused == 0, answers.last_refusal
            ours.append(answers.ok * items / took)
            process = stack.limit("producer", prefix, str(seconds), record)
            out, _ = await asyncio.to_thread(process.communicate)
            stack.children.remove(process)
            limits.append(float(out))
    finally:
        platform.stop()
    return [figure("ingest batch", "events/s", ours, limit=limits, bar=0.8, against="ratio")]


def _record() -> str:
    """What one event of the batch becomes, as the limit reads it."""
    posted = event.parse_post(event_body(0), now_ms=0)
    output = event.to_output(event.make_event(posted, account=ids.new_id(ids.ACCOUNT), now_ms=0))
    assert output.key is not None
    assert output.value is not None
    headers = [(name, value.decode()) for name, value in output.headers]
    return json.dumps([output.key.decode(), output.value.decode(), headers])
