"""The meter's composition: Faust counts, our own producer writes what closed windows held."""

from collections.abc import Mapping

from millrace_core.errors import Fatal
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_meter.agents import MeterAgents, Names
from millrace_meter.settings import MeterSettings
from millrace_meter.windows import Counts, LastWindow
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker


async def wire(settings: MeterSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. The topics must be there: Faust is not let to create any."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-meter-{settings.instance}", settings.security)
    producer = PlainProducer(cluster, observer=context.observer)
    async with Admin(cluster) as admin:
        found = await admin.topics(["tallies", "meter-changelog"])
    if len(found) < 2:
        raise Fatal("the topics tallies and meter-changelog are missing: run `millrace topics`")
    meter = MeterAgents(
        Names(
            group=cluster.group("meter"),
            tallies=cluster.topic("tallies"),
            changelog=cluster.topic("meter-changelog"),
        ),
        bootstrap=cluster.bootstrap,
        security=cluster.security,
        write=producer.write,
        told=Shown(context),
        clock=context.clock,
        partitions=found["tallies"].partitions,
        folder=settings.state_dir / "meter" / settings.instance,
    )
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    context.health.add("tallies", meter.ready)
    return {"tallies": meter.run}


class Shown:
    """What the meter sees, as metrics and log lines."""

    def __init__(self, context: Context) -> None:
        metrics: Metrics = context.metrics
        self._gauges = (
            metrics.gauge(metric_defs.METER_EVENTS),
            metrics.gauge(metric_defs.METER_RUNS),
            metrics.gauge(metric_defs.METER_DELIVERIES),
        )
        self._total = metrics.counter(metric_defs.METER_COUNTED)
        self._observer = context.observer
        self._log = context.log

    def counted(self, account: str, counts: Counts) -> None:
        for what, count in zip(("events", "runs", "deliveries"), counts, strict=True):
            self._total.labels(account, what).inc(count)

    def closed(self, last: LastWindow, now_ms: int) -> None:
        # A key that had nothing since must not go on showing what it once had.
        for gauge in self._gauges:
            gauge.clear()
        for shown in last.series(now_ms):
            for gauge, count in zip(self._gauges, shown.counts, strict=True):
                gauge.labels(shown.account, shown.identifier).set(count)

    def dead_letter(self, topic: str, partition: int, offset: int, reason: str) -> None:
        self._observer.dead_letter(topic, partition, offset, reason)

    def failed(self, reason: str) -> None:
        self._log.warning("meter.failed", reason=reason)
