"""The orchestrator's composition: one transactional processor over runs, one over what their flows admit, by a clock
that the broker confirms."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import get_args

from millrace_core.clock import Clock
from millrace_core.errors import Retry
from millrace_core.messages import WaitReason
from millrace_core.restart import pause
from millrace_core.steady_clock import SteadyClock
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.producer import PlainProducer
from millrace_kafka.rocks import RocksStores
from millrace_kafka.ticker import Ticker
from millrace_kafka.transactional import TransactionalProcessor
from millrace_orchestrator import admissions_handler, handlers
from millrace_orchestrator.admissions import HeldBack
from millrace_orchestrator.admissions_handler import AdmissionsHandler
from millrace_orchestrator.flows import Flows
from millrace_orchestrator.handlers import OrchestratorHandler
from millrace_orchestrator.settings import OrchestratorSettings
from millrace_orchestrator.shares import Shares, share_of
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker

HELD_EVERY_S = 5.0


async def wire(settings: OrchestratorSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Plans travel with their runs, so runs follow no control view; admissions do, for the flows. Returns
    when the view holds what was on `control` and the broker has confirmed the time."""
    cluster = Cluster(
        settings.kafka, settings.namespace, f"millrace-orchestrator-{settings.instance}", settings.security
    )
    share = share_of(await _partitions(cluster))
    clock, flows = SteadyClock(context.clock), Flows()
    producer = PlainProducer(cluster, observer=context.observer)
    view = ControlView(
        cluster, followers={"subscription": flows, "account": flows}, clock=context.clock, observer=context.observer
    )
    stores = RocksStores(settings.state_dir / "orchestrator" / settings.instance)
    ended = context.metrics.counter(metric_defs.ORCHESTRATOR_RUNS)
    runs = TransactionalProcessor(
        cluster,
        group="orchestrator",
        inputs=handlers.INPUTS,
        changelog="orchestrator-changelog",
        read_back=handlers.READ_BACK,
        handler=lambda partition: OrchestratorHandler(
            shares=Shares(released_max=share), ended=lambda outcome: ended.labels(outcome).inc()
        ),
        store=stores,
        view=None,
        clock=context.clock,
        observer=context.observer,
        instance=settings.instance,
    )
    admissions = TransactionalProcessor(
        cluster,
        group="admissions",
        inputs=admissions_handler.INPUTS,
        changelog="admissions-changelog",
        handler=lambda partition: AdmissionsHandler(flows),
        store=stores,
        view=view,
        clock=clock,
        observer=context.observer,
        instance=settings.instance,
    )
    ticker = Ticker(clock, producer.write)
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    context.stack.push_async_callback(view.stop)
    await view.start()
    await ticker.first(context.stop)
    context.health.add("clock", ticker.ready)
    context.health.add("control", view.ready)
    context.health.add("runs", runs.ready)
    context.health.add("admissions", admissions.ready)
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    context.metrics.watch(metric_defs.ORCHESTRATOR_LIVE_RUNS, lambda: sum(each.live_runs for each in runs.living))
    context.metrics.watch(metric_defs.ORCHESTRATOR_HELD_STEPS, lambda: sum(each.held_steps for each in runs.living))
    held = Held(context.metrics, clock)

    async def tell_held(stop: asyncio.Event) -> None:
        while not stop.is_set():
            held.found([each.held() for each in admissions.living])
            await pause(stop, HELD_EVERY_S)

    return {
        "clock": ticker.run,
        "control": view.run,
        "runs": runs.run,
        "admissions": admissions.run,
        "held": tell_held,
    }


class Held:
    """What flows hold back, as metrics: of the partitions that are this process's, so that the sum is the whole."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._runs = metrics.gauge(metric_defs.ORCHESTRATOR_HELD_RUNS)
        self._ages = metrics.gauge(metric_defs.ORCHESTRATOR_HELD_OLDEST_AGE_SECONDS)
        self._clock = clock

    def found(self, partitions: Sequence[Mapping[WaitReason, HeldBack]]) -> None:
        now_ms = self._clock.now_ms()
        for reason in get_args(WaitReason):
            held = [partition[reason] for partition in partitions if reason in partition]
            oldest_at = min((each.oldest_at for each in held), default=now_ms)
            self._runs.labels(reason).set(sum(each.runs for each in held))
            self._ages.labels(reason).set(max(0, now_ms - oldest_at) / 1000)


async def _partitions(cluster: Cluster) -> int:
    """How many there are, for good: counts never change in place."""
    async with Admin(cluster) as admin:
        info = (await admin.topics([handlers.COMMANDS])).get(handlers.COMMANDS)
    if info is None:
        raise Retry(f"{handlers.COMMANDS} does not exist: create the topics first (millrace topics)")
    return info.partitions
