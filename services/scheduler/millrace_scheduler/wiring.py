"""The scheduler's composition: a clock that the broker confirms, and one transactional processor over the timers."""

from collections.abc import Mapping

from millrace_core.steady_clock import SteadyClock
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.rocks import RocksStores
from millrace_kafka.ticker import Ticker
from millrace_kafka.transactional import TransactionalProcessor
from millrace_runtime import metric_defs
from millrace_runtime.service import Context, Worker
from millrace_scheduler.handlers import INPUTS, READ_BACK, SchedulerHandler
from millrace_scheduler.settings import SchedulerSettings


async def wire(settings: SchedulerSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Returns when the broker has confirmed the time: no timer fires by a clock that may be wrong."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-scheduler-{settings.instance}", settings.security)
    clock = SteadyClock(context.clock)
    producer = PlainProducer(cluster, observer=context.observer)
    fired = context.metrics.counter(metric_defs.SCHEDULER_FIRED)
    late = context.metrics.histogram(metric_defs.SCHEDULER_LATE_SECONDS)

    def has_fired(late_ms: int) -> None:
        fired.inc()
        late.observe(late_ms / 1000)

    processor = TransactionalProcessor(
        cluster,
        group="scheduler",
        inputs=INPUTS,
        changelog="scheduler-changelog",
        read_back=READ_BACK,
        handler=lambda partition: SchedulerHandler(fired=has_fired),
        store=RocksStores(settings.state_dir / "scheduler" / settings.instance),
        view=None,
        clock=clock,
        observer=context.observer,
        instance=settings.instance,
    )

    ticker = Ticker(clock, producer.write)
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    await ticker.first(context.stop)
    context.health.add("clock", ticker.ready)
    context.health.add("timers", processor.ready)
    context.metrics.watch(metric_defs.SCHEDULER_TIMERS, lambda: sum(each.waiting for each in processor.living))
    return {"clock": ticker.run, "timers": processor.run}
