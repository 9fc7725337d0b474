"""Flow control on a real broker: bounds hold and each run ends once, whoever dies between two transactions."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog

from millrace_core.clock import SystemClock
from millrace_core.messages import (
    AccountControl,
    Concurrency,
    Debounce,
    FlowControl,
    FlowPart,
    RunEnded,
    RunFact,
    RunStarted,
    RunWaiting,
    StartRun,
    Step,
    SubscriptionControl,
    decode,
    encode,
)
from millrace_core.record import ACCOUNT, CONTROL, ID, SOURCE, Output
from millrace_kafka.admin import create_topics
from millrace_kafka.client import Cluster
from millrace_kafka.control_log import ControlWriter
from millrace_kafka.producer import PlainProducer
from millrace_kafka.reader import Reader, read_all
from millrace_orchestrator.flows import Flows
from millrace_orchestrator.settings import OrchestratorSettings
from millrace_orchestrator.wiring import wire
from millrace_runtime.metrics import Metrics, MetricsObserver
from millrace_runtime.service import Context
from tests.support import plans
from tests.support.plans import NOW_MS, job, start
from tests.support.processing import viewing
from tests.support.run_worlds import answer
from tests.support.task_services import Life, admitting, living, orchestrating
from tests.support.waiting import eventually

SEED = 11
SUB = "sub_1"


@pytest.fixture
async def log(cluster: Cluster) -> AsyncIterator[PlainProducer]:
    await create_topics(cluster, partitions=2)
    producer = PlainProducer(cluster)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
async def control(cluster: Cluster, log: PlainProducer) -> AsyncIterator[ControlWriter]:
    writer = ControlWriter(cluster)
    await writer.start()
    yield writer
    await writer.stop()


async def change(control: ControlWriter, flow: FlowControl, *, version: int = 1) -> int:
    """The flow in force; the position behind it."""
    message = SubscriptionControl(
        account=plans.ACCOUNT, pattern="e:a/b", target_kind="plan", target_id="job_1", created_at=0, flow=flow
    )
    return await control.write([("subscription", plans.ACCOUNT, SUB, version, encode(message))])


async def change_account(control: ControlWriter, flow: FlowControl) -> int:
    message = AccountControl(flow=flow)
    return await control.write([("account", plans.ACCOUNT, plans.ACCOUNT, 1, encode(message))])


def held(n: int, *, keys: int = 1) -> StartRun:
    part = FlowPart(key=f"k{n % keys}", priority=100, partition=0, offset=n, at=NOW_MS + n)
    return start(job(), n=n, flow=part)


def started(one: StartRun, n: int, position: int) -> Output:
    headers = ((ACCOUNT, one.account.encode()), (ID, one.run.encode()), (SOURCE, b"events:0:%d" % n))
    return Output("run-commands", one.run.encode(), encode(one), (*headers, (CONTROL, b"%d" % position)))


async def facts(cluster: Cluster) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for record in await read_all(cluster, ["run-facts"]):
        fact: Any = decode(record.value, RunFact)  # type: ignore[arg-type]
        found[fact.run].append(fact)
    return found


async def ended(cluster: Cluster, runs: int) -> dict[str, list[Any]]:
    async def all_ended() -> dict[str, list[Any]]:
        found = await facts(cluster)
        ends = {run for run, of in found.items() if any(isinstance(fact, RunEnded) for fact in of)}
        assert len(ends) == runs, f"{len(ends)} of {runs} ended"
        return found

    return await eventually(all_ended, timeout_s=60, every_s=0.1)


async def execute(cluster: Cluster, log: PlainProducer, stop: asyncio.Event) -> None:
    """An executor that answers every step twice."""
    async with Reader(cluster) as reader:
        reader.assign(await reader.starts(await reader.partitions(["steps"])))
        while not stop.is_set():
            for record in await reader.poll(timeout_s=0.1):
                result = answer(decode(record.value, Step), seed=1, failures=0)
                headers = ((ACCOUNT, result.account.encode()), (ID, result.run.encode()))
                await log.write([Output("step-results", result.run.encode(), encode(result), headers)] * 2)


async def ended_among_deaths(
    cluster: Cluster, log: PlainProducer, starts: list[StartRun], position: int
) -> dict[str, list[Any]]:
    """The facts of these runs, all ended, while the two processors die in turn and every start comes again."""
    chance, stop, flows = Random(SEED), asyncio.Event(), Flows()
    async with viewing(cluster, subscription=flows, account=flows) as view, asyncio.TaskGroup() as group:
        group.create_task(execute(cluster, log, stop))
        makers = (partial(orchestrating, cluster), partial(admitting, cluster, flows, view))
        lives = [Life(make()) for make in makers]
        for n, one in enumerate(starts):
            await log.write([started(one, n, position)] * 2)
        for _ in range(5):
            n = chance.randrange(2)
            await lives[n].ready()
            await lives[n].kill()
            lives[n] = Life(makers[n]())
            await log.write([started(one, at, position) for at, one in enumerate(starts)])
        found = await ended(cluster, len(starts))
        stop.set()
        for life in lives:
            await life.stop()
    return found


def only(kind: type, of: list[Any]) -> Any:
    (found,) = [fact for fact in of if isinstance(fact, kind)]
    return found


async def test_a_ceiling_holds_and_each_run_ends_once_though_the_processors_die(
    cluster: Cluster, log: PlainProducer, control: ControlWriter
) -> None:
    count, keys = 24, 3
    position = await change(control, FlowControl(concurrency=Concurrency(ceiling=1)))
    starts = [held(n, keys=keys) for n in range(count)]
    found = await ended_among_deaths(cluster, log, starts, position)
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for one in starts:
        of = found[one.run]
        assert only(RunEnded, of).outcome == "completed"
        assert one.flow is not None
        spans[one.flow.key].append((only(RunStarted, of).at, only(RunEnded, of).at))
    for times in spans.values():
        times.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(times)), times
    steps = [decode(record.value, Step).key for record in await read_all(cluster, ["steps"])]
    assert len(set(steps)) == len(steps) == count
    assert any(isinstance(fact, RunWaiting) for of in found.values() for fact in of)


async def test_the_ceiling_of_an_account_holds_over_its_subscriptions_though_the_processors_die(
    cluster: Cluster, log: PlainProducer, control: ControlWriter
) -> None:
    """Every second run is of a subscription with a flow of its own, which two at a time may pass."""
    count = 24
    await change(control, FlowControl(concurrency=Concurrency(total=2)))
    position = await change_account(control, FlowControl(concurrency=Concurrency(total=1)))
    starts = []
    for n in range(count):
        part = FlowPart(key="", priority=100, partition=0, offset=n, at=NOW_MS + n)
        own, sub = (part, SUB) if n % 2 else (None, f"sub_{n}")
        starts.append(start(job(), n=n, subscription=sub, flow=own, account_flow=part))
    found = await ended_among_deaths(cluster, log, starts, position)
    spans = []
    for one in starts:
        of = found[one.run]
        assert only(RunEnded, of).outcome == "completed"
        assert only(RunStarted, of).subscription == one.subscription
        spans.append((only(RunStarted, of).at, only(RunEnded, of).at))
    spans.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans
    reasons = {fact.reason for of in found.values() for fact in of if isinstance(fact, RunWaiting)}
    assert {"account", "account_concurrency"} <= reasons


async def test_a_match_is_decided_by_a_flow_as_new_as_itself_and_a_change_alone_lets_it_go(
    cluster: Cluster, log: PlainProducer, control: ControlWriter
) -> None:
    flows = Flows()
    async with (
        viewing(cluster, subscription=flows) as view,
        living(orchestrating(cluster)),
        living(admitting(cluster, flows, view)),
    ):
        position = await change(control, FlowControl(drain=True))
        await log.write([started(held(1), 1, position)])

        async def told() -> Any:
            return only(RunWaiting, (await facts(cluster))[held(1).run])

        waiting = await eventually(_if_any(told), timeout_s=20, every_s=0.05)
        assert waiting.reason == "drain"
        await change(control, FlowControl(), version=2)
        await eventually(lambda: read_all(cluster, ["steps"]), timeout_s=20, every_s=0.05)


async def test_a_burst_is_one_run_by_the_clock_alone(
    cluster: Cluster, log: PlainProducer, control: ControlWriter
) -> None:
    flows = Flows()
    position = await change(control, FlowControl(debounce=Debounce(quiet_s=1.0, longest_s=30.0)))
    stop = asyncio.Event()
    async with (
        viewing(cluster, subscription=flows) as view,
        living(orchestrating(cluster)) as runs,
        living(admitting(cluster, flows, view)) as admissions,
        asyncio.TaskGroup() as group,
    ):
        await runs.ready()
        await admissions.ready()
        group.create_task(execute(cluster, log, stop))
        await log.write([started(held(n), n, position) for n in range(5)])
        found = await ended(cluster, 5)
        stop.set()
    outcomes = {n: only(RunEnded, found[held(n).run]).outcome for n in range(5)}
    assert outcomes == dict.fromkeys(range(4), "absorbed") | {4: "completed"}


async def test_metrics_say_what_a_flow_holds_back(
    cluster: Cluster, log: PlainProducer, control: ControlWriter, tmp_path: Path
) -> None:
    position = await change(control, FlowControl(drain=True))
    settings = OrchestratorSettings(
        kafka=cluster.bootstrap, namespace=cluster.namespace, instance="one", state_dir=tmp_path
    )
    metrics, logger = Metrics(), structlog.get_logger()
    context = Context(
        name="orchestrator", instance="one", clock=SystemClock(), log=logger, metrics=metrics,
        observer=MetricsObserver(metrics, logger),
    )  # fmt: skip

    def value(sample: str) -> float:
        lines = metrics.exposition().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"millrace_orchestrator_{sample} ")))

    running = [asyncio.ensure_future(worker(context.stop)) for worker in (await wire(settings, context)).values()]
    try:
        await log.write([started(held(n, keys=2), n, position) for n in range(3)])
        await eventually(lambda: value('held_runs{reason="drain"}') == 3, timeout_s=20, every_s=0.1)
        assert value('held_oldest_age_seconds{reason="drain"}') > 0
        assert value('held_runs{reason="throttle"}') == value('held_oldest_age_seconds{reason="throttle"}') == 0
        assert (value("live_runs"), value("held_steps")) == (3, 0)
        await change(control, FlowControl(), version=2)
        await eventually(lambda: value('held_runs{reason="drain"}') == 0, timeout_s=20, every_s=0.1)
    finally:
        context.stop.set()
        await asyncio.gather(*running)
        await context.stack.aclose()


def _if_any(ask: Any) -> Any:
    async def asked() -> Any:
        try:
            return await ask()
        except ValueError:
            return None

    return asked
