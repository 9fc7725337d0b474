"""What grows: subscriptions, live state, and a backlog. Does it stay fast, flat in memory, and quick to restart?

Orchestrator runs are counted against the CPU of its own process; a backlog's memory is the greatest seen on the way.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from millrace_core import ids, record
from millrace_core.clock import SystemClock
from millrace_core.matching import SubscriptionIndex
from millrace_core.messages import EventFact, EventRef, Raw, StartRun, decode, encode_with_payload
from millrace_core.plans import Node, RetryPolicy, compile_job, encode_plan, raw_config
from millrace_core.record import Output, Received
from millrace_kafka.control import ControlView
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.reader import Reader
from tests.bench import cpu
from tests.bench.plots import Plot
from tests.bench.report import Figure, figure
from tests.bench.stack import Stack
from tests.bench.subscriptions import subscriptions
from tests.bench.world import ACCOUNT, IDENTIFIER, WRITE_RECORDS, cluster_of, event_of, furnish, pieces, write
from tests.support.platform import Platform

T = TypeVar("T")

SIZES = (10, 1_000, 100_000, 1_000_000)
_NODE = Node(id="one", type="transform", config=raw_config({"value": {"ok": True}}), retry=RetryPolicy(attempts=1))
PLAN = Raw(encode_plan(compile_job(_NODE, id=ids.new_id(ids.JOB), version=1, name="bench")))


async def matching(*, largest: int) -> list[Figure | Plot]:
    """What one event costs against ever more subscriptions, and what each of them takes."""
    found = {}
    for size in (size for size in SIZES if size <= largest):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.subscriptions", str(size), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        found[size] = json.loads(out)
    most, least = max(found), min(found)
    figures = [
        figure(f"match one event, {size:,} subscriptions", "µs", one["us"], bar=50, better="less")
        for size, one in found.items()
    ]
    cost = {"one event, five matches": [(size, one["us"]) for size, one in found.items()]}
    return [
        Plot("Matching cost by subscriptions of the account", "subscriptions", "µs", cost, log_x=True),
        *figures,
        figure(
            f"match at {most:,} / at {least}",
            "µs",
            found[most]["us"],
            limit=found[least]["us"],
            bar=3,
            against="ratio",
            better="less",
        ),
        figure("memory a subscription", "bytes PSS", found[most]["bytes"], bar=1_024, better="less"),
        figure(f"index of {most:,} subscriptions made", "s", found[most]["load_s"], bar=60, better="less"),
    ]


async def control(stack: Stack, *, count: int) -> list[Figure]:
    """How long a view takes to load so many subscriptions from the log."""
    platform = await stack.platform()
    writer = ControlWriter(cluster_of(platform))
    await writer.start()
    entries = (("subscription", ACCOUNT, id, 1, value) for id, value in subscriptions(count))
    for some in pieces(entries, WRITE_RECORDS):
        await writer.write(some)
    await writer.stop()
    index = SubscriptionIndex()
    view = ControlView(cluster_of(platform), followers={"subscription": index}, clock=SystemClock())
    began = time.perf_counter()
    await view.start()
    took = time.perf_counter() - began
    await view.stop()
    assert len(index) == count
    return [figure(f"{count:,} subscriptions read from the log", "s", took, bar=60, better="less")]


async def orchestrator(stack: Stack, *, runs: int) -> list[Figure]:
    """One-step runs a CPU second of the orchestrator's process, with its executor and the projector beside it."""
    async with _world(stack) as (platform, rows):
        await _ask_runs(platform, runs)
        platform.start("projector")
        platform.start("executor")
        process = platform.start("orchestrator").process
        await _until(rows, "select count(*) from read.runs where status = 'completed'", runs)
        used = cpu.cpu_seconds(process.pid)
    return [figure("orchestrator, one-step runs", "runs/CPU s", runs / used, bar=3_000)]


async def restart(stack: Stack, *, keys: int, runs: int) -> list[Figure]:
    """From the start after a SIGKILL, on the same disk, until it says that it is ready and has handled what came while
    it was dead: a matcher that remembers so many keys, and must know one of them again; an orchestrator with so many
    live runs (nobody executes, so they stay alive), and one more to begin."""
    async with _world(stack) as (platform, rows):
        await furnish(platform)
        await _post(platform, keys, unique=True)
        await _ask_runs(platform, runs)
        for name in ("projector", "matcher", "orchestrator"):
            platform.start(name)
        await _until(rows, "select count(*) from read.event_outcomes", keys)
        await _until(rows, "select count(*) from read.runs where status = 'running'", runs)
        again, one_more = event_of(0, unique=True), _run(runs)
        matcher, fact = await _back(platform, "matcher", again, "event-facts")
        assert decode(fact.value, EventFact).outcome == "duplicate"
        orchestrator, _ = await _back(platform, "orchestrator", one_more, "run-facts")
    return [
        figure(f"matcher with {keys:,} keys, back after SIGKILL", "s", matcher, bar=10, better="less"),
        figure(f"orchestrator with {runs:,} live runs, back after SIGKILL", "s", orchestrator, bar=10, better="less"),
    ]


async def backlog(stack: Stack, *, count: int) -> list[Figure | Plot]:
    """So many events wait: matched and projected, how fast, and in how much memory on the way."""
    async with _world(stack) as (platform, rows):
        await furnish(platform, url="http://127.0.0.1:9/", subscriptions=1_000)
        await _post(platform, count)
        began = time.perf_counter()
        pids = {name: platform.start(name).process.pid for name in ("matcher", "projector")}
        sizes: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        for tenth in range(1, 11):
            await _until(rows, "select count(*) from read.event_outcomes", count * tenth // 10)
            for name, pid in pids.items():
                sizes[name].append((count * tenth / 10, cpu.pss_bytes(pid) / 1e6))
        took = time.perf_counter() - began
    half, end = (max(curve[at][1] for curve in sizes.values()) for at in (4, 9))
    name = f"backlog of {count:,} events"
    return [
        Plot("Memory on the way through a backlog", "events projected", "MB PSS", sizes),
        figure(f"{name}, matched and projected", "events/s", count / took),
        figure(
            f"{name}: memory at its end / half way",
            "MB PSS",
            end,
            limit=half,
            bar=1.2,
            against="ratio",
            better="less",
        ),
    ]


# ── the world ───────────────────────────────────────────────────────────────────────────────────────────────────────
@asynccontextmanager
async def _world(stack: Stack) -> AsyncIterator[tuple[Platform, asyncpg.Connection]]:
    platform = await stack.platform()
    rows = await asyncpg.connect(platform.postgres)
    try:
        yield platform, rows
    finally:
        await rows.close()
        platform.stop()


async def _until(rows: asyncpg.Connection, query: str, count: int, *, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while (found := await rows.fetchval(query)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{query}: {found} of {count}")
        await asyncio.sleep(0.5)


async def _back(platform: Platform, name: str, asked: Output, answers: str) -> tuple[float, Received]:
    """Seconds from its start after a SIGKILL until it is ready and `asked`, written while it was dead, is answered on
    `answers` under its key; and that answer."""
    await platform.ready([name])
    platform.kill(name)
    async with Reader(cluster_of(platform)) as reader:
        reader.assign(await reader.ends(await reader.partitions([answers])))
        await write(platform, [asked])
        began = time.perf_counter()
        platform.restart(name)
        found = await _answer(reader, asked)
        await platform.ready([name])
        return time.perf_counter() - began, found


async def _answer(reader: Reader, asked: Output, *, timeout_s: float = 120) -> Received:
    id = dict(asked.headers)[record.ID]
    async with asyncio.timeout(timeout_s):
        while True:
            for found in await reader.poll():
                if found.key == id:
                    return found


async def _post(platform: Platform, count: int, *, unique: bool = False) -> None:
    await write(platform, (event_of(n, unique=unique) for n in range(count)))


async def _ask_runs(platform: Platform, count: int) -> None:
    await write(platform, map(_run, range(count)))


def _run(n: int) -> Output:
    event = ids.new_id(ids.EVENT)
    run = ids.run_id_of(event, "bench")
    started = StartRun(
        run=run,
        account=ACCOUNT,
        plan=PLAN,
        event=EventRef(id=event, identifier=IDENTIFIER, received_at=time.time_ns() // 1_000_000),
        input=Raw(b'{"n":%d}' % n),
    )
    value, payload_at = encode_with_payload(started, started.input)
    headers = ((record.ACCOUNT, ACCOUNT.encode()), (record.ID, run.encode()), (record.PAYLOAD, payload_at))
    return Output("run-commands", run.encode(), value, headers)
