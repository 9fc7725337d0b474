"""Webhooks end to end: from the client's write to the sink's last byte, ours and the bare pipeline in the same run.

Latency at 50/s; the highest rate that is held with flat lag; CPU of every process at that rate; memory at rest.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench import cpu
from tests.bench.load import event_body, paced, request
from tests.bench.plots import Plot, spread
from tests.bench.report import Figure, figure, percentile
from tests.bench.stack import Sink, Stack, says_ready
from tests.bench.world import furnish
from tests.support.platform import SERVICES

PATH = "/ingest/event/publish"
# A rate is held when the sink has all but this many seconds' worth of events when the last one was posted.
FLAT_LAG_S = 0.5
# Before latency is measured. It comes after the highest rate, when the broker has compiled what it uses, as it has in a
# platform that has been running for some minutes.
SETTLE_S = 20
# Held for long.
LONG_RATE = 3_000
RATES = (500, 800, 1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 3_500, 4_000)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Something that takes events at a port and posts webhooks to the sink."""

    port: int
    key: str
    pids: Mapping[str, int]
    sink: Sink


@dataclass(frozen=True, slots=True)
class Held:
    """What one run at one rate showed. Latencies in ms; `behind` events had not arrived when the last was posted."""

    rate: float
    sent: int
    refused: int
    behind: int
    behind_early: int
    missing: int
    latency_ms: list[float]
    cpu_s: Mapping[str, float]
    lag: list[tuple[float, float]]  # second of the run, events that had not arrived

    @property
    def is_flat(self) -> bool:
        """All accepted, all arrived, and no more behind than half a second's worth."""
        return self.refused == 0 and self.missing == 0 and self.behind <= max(10.0, self.rate * FLAT_LAG_S)


async def hold(stack: Stack, pipeline: Pipeline, *, rate: float, seconds: float) -> Held:
    """Post at `rate` for `seconds` and wait until all has arrived (or 20 s)."""
    await pipeline.sink.ask("clear")
    before = _cpu(stack, pipeline)
    lag: list[tuple[float, float]] = []

    async def look() -> None:
        began = time.monotonic()
        for at in range(1, int(seconds)):
            await asyncio.sleep(began + at - time.monotonic())
            lag.append((at, int(rate * (time.monotonic() - began)) - await pipeline.sink.count()))

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        answers, due = await paced(
            "127.0.0.1",
            pipeline.port,
            lambda n: request(PATH, event_body(n), pipeline.key),
            rate=rate,
            seconds=seconds,
            connections=64,
        )
    arrived = await pipeline.sink.count()
    deadline = time.monotonic() + 20
    while await pipeline.sink.count() < answers.ok and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    after = _cpu(stack, pipeline)
    times = _first_times(await pipeline.sink.ask("times"))
    return Held(
        rate=rate,
        sent=len(due),
        refused=answers.refused,
        behind=len(due) - arrived,
        behind_early=int(lag[len(lag) // 3][1]) if lag else 0,
        missing=answers.ok - len(times),
        latency_ms=_latencies(due, times),
        cpu_s={name: after[name] - before[name] for name in after},
        lag=lag,
    )


def _first_times(raw: bytes) -> dict[int, float]:
    times: dict[int, float] = {}
    for seq, at in struct.iter_unpack("<qd", raw):
        times.setdefault(seq, at)
    return times


def _latencies(due: array[float], times: Mapping[int, float]) -> list[float]:
    return [(times[n] - at) * 1000 for n, at in enumerate(due) if n in times]


def _cpu(stack: Stack, pipeline: Pipeline) -> dict[str, float]:
    own = {name: cpu.cpu_seconds(pid) for name, pid in pipeline.pids.items()}
    return {**own, **stack.server_cpu()}


async def highest(stack: Stack, pipeline: Pipeline, *, probe_s: float, hold_s: float) -> Held:
    """The highest rate of the ladder that is flat, held for `hold_s`; a rate that fails its long run gives way."""
    flat = [RATES[0]]
    for rate in RATES:
        tried = await hold(stack, pipeline, rate=rate, seconds=probe_s)
        print(f"    {rate}/s: behind {tried.behind}, missing {tried.missing}, refused {tried.refused}", flush=True)
        if not tried.is_flat:
            break
        flat.append(rate)
    while True:
        held = await hold(stack, pipeline, rate=flat[-1], seconds=hold_s)
        if held.is_flat or len(flat) == 1:
            return held
        flat.pop()


async def ours(stack: Stack, sink: Sink) -> tuple[Pipeline, Callable[[], None]]:
    """Every service of ours, ready."""
    platform = await stack.platform()
    key = await furnish(platform, url=sink.url)
    for name in SERVICES:
        platform.start(name)
    await platform.ready(timeout_s=90)
    port = platform.running["gateway"].http_port
    assert port is not None
    pids = {name: running.process.pid for name, running in platform.running.items()}
    return Pipeline(port, key, pids, sink), platform.stop


async def bare(stack: Stack, sink: Sink) -> tuple[Pipeline, Callable[[], None]]:
    """The bare pipeline, ready."""
    prefix = await stack.limit_topics()
    processes: dict[str, subprocess.Popen[bytes]] = {
        name: stack.limit(name, prefix, env={"BENCH_SINK": sink.url}) for name in ("matcher", "dispatcher", "projector")
    }
    for process in processes.values():
        await says_ready(process)
    processes["gateway"], port = await stack.limit_gateway(prefix)

    def stop() -> None:
        for process in processes.values():
            stack.end(process)

    return Pipeline(port, "none", {name: p.pid for name, p in processes.items()}, sink), stop


async def run(
    stack: Stack, *, latency_s: float, probe_s: float, hold_s: float, long_s: float, rest_s: float
) -> list[Figure | Plot]:
    """All end-to-end figures and their curves. The highest rate is held for `hold_s`, then LONG_RATE for `long_s`."""
    sink = await stack.sink()
    figures: list[Figure] = []
    pipeline, stop = await ours(stack, sink)
    try:
        figures += await _memory(stack, pipeline, rest_s)
        await hold(stack, pipeline, rate=200, seconds=5)
        most = await highest(stack, pipeline, probe_s=probe_s, hold_s=hold_s)
        calm = await _calm(stack, pipeline, latency_s)
        long = await hold(stack, pipeline, rate=min(most.rate, LONG_RATE), seconds=long_s)
    finally:
        stop()
    pipeline, stop = await bare(stack, sink)
    try:
        await hold(stack, pipeline, rate=200, seconds=5)
        bare_most = await highest(stack, pipeline, probe_s=probe_s, hold_s=min(hold_s, 20))
        bare_calm = await _calm(stack, pipeline, latency_s)
    finally:
        stop()
    figures += [
        *_latency("webhook p50 at 50/s", calm, bare_calm, 0.50, max(4, 1.4 * percentile(bare_calm.latency_ms, 0.50))),
        *_latency("webhook p99 at 50/s", calm, bare_calm, 0.99, 10),
        figure("webhook highest rate held", "webhooks/s", most.rate, limit=bare_most.rate, bar=3_000),
        *_latency("webhook p95 at the highest rate", most, bare_most, 0.95, None),
        figure("CPU an event at the highest rate", "ms", _cpu_ms(most), limit=_cpu_ms(bare_most)),
    ]
    for name, seconds in sorted(most.cpu_s.items()):
        figures.append(
            figure(f"  CPU an event: {name}", "ms", seconds * 1000 / most.sent, limit=_part(bare_most, name))
        )
    figures.append(figure("lag after a third of the hold / at its end", "events", most.behind, limit=most.behind_early))
    figures += [
        figure(
            f"webhooks/s held for {long_s:g} s (0: it fell behind)",
            "webhooks/s",
            long.rate if long.is_flat else 0.0,
            bar=LONG_RATE,
        ),
        figure(f"  p95 over {long_s:g} s", "ms", percentile(long.latency_ms, 0.95), bar=100, better="less"),
        figure(f"  CPU an event over {long_s:g} s", "ms", _cpu_ms(long), bar=0.5, better="less"),
    ]
    return [*figures, *_curves(calm, bare_calm, long, bare_most)]


async def _calm(stack: Stack, pipeline: Pipeline, seconds: float) -> Held:
    await hold(stack, pipeline, rate=50, seconds=SETTLE_S)
    return await hold(stack, pipeline, rate=50, seconds=seconds)


def _curves(calm: Held, bare_calm: Held, most: Held, bare_most: Held) -> list[Plot]:
    ours, bare = f"ours, {most.rate:g}/s", f"bare pipeline, {bare_most.rate:g}/s"
    calmly = {"ours": calm.latency_ms, "bare pipeline": bare_calm.latency_ms}
    return [
        spread("Webhook latency at 50/s", "ms", calmly),
        spread("Webhook latency at the highest rate", "ms", {ours: most.latency_ms, bare: bare_most.latency_ms}),
        Plot(
            "Events on their way while the highest rate is held", "s", "events", {ours: most.lag, bare: bare_most.lag}
        ),
    ]


def _latency(name: str, mine: Held, limit: Held, share: float, bar: float | None) -> list[Figure]:
    ours_ms, bare_ms = percentile(mine.latency_ms, share), percentile(limit.latency_ms, share)
    return [figure(name, "ms", ours_ms, limit=bare_ms, bar=bar, better="less")]


def _cpu_ms(held: Held) -> float:
    return sum(held.cpu_s.values()) * 1000 / held.sent


def _part(held: Held, name: str) -> float | None:
    return held.cpu_s[name] * 1000 / held.sent if name in held.cpu_s else None


async def _memory(stack: Stack, pipeline: Pipeline, rest_s: float) -> list[Figure]:
    """PSS of each Python service `rest_s` after ready, and of everything together."""
    await asyncio.sleep(rest_s)
    sizes = {name: cpu.pss_bytes(pid) / 1e6 for name, pid in pipeline.pids.items()}
    assert stack.kafka.pid is not None
    assert stack.postgres.pid is not None
    servers = cpu.family_pss_bytes(stack.kafka.pid) + cpu.family_pss_bytes(stack.postgres.pid)
    largest = max(sizes, key=lambda name: sizes[name])
    return [
        figure(f"memory of the largest service ({largest})", "MB PSS", sizes[largest], bar=100, better="less"),
        figure("memory of everything", "MB PSS", sum(sizes.values()) + servers / 1e6, bar=2_500, better="less"),
    ]
