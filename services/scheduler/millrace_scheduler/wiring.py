"""The scheduler's composition: a clock that the broker confirms, and one transactional processor over the timers."""

from collections.abc import Mapping

from millrace_core.record import Output
from millrace_kafka.client import Cluster
from millrace_kafka.producer import PlainProducer
from millrace_kafka.rocks import RocksStores
from millrace_kafka.transactional import TransactionalProcessor
from millrace_runtime.service import Context, Worker
from millrace_scheduler.handlers import INPUTS, READ_BACK, SchedulerHandler
from millrace_scheduler.settings import SchedulerSettings
from millrace_scheduler.steady_clock import SteadyClock
from millrace_scheduler.ticker import Ticker


async def wire(settings: SchedulerSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Returns when the broker has confirmed the time: no timer fires by a clock that may be wrong."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-scheduler-{settings.instance}", settings.security)
    clock = SteadyClock(context.clock)
    producer = PlainProducer(cluster, observer=context.observer)
    processor = TransactionalProcessor(
        cluster,
        group="scheduler",
        inputs=INPUTS,
        changelog="scheduler-changelog",
        read_back=READ_BACK,
        handler=lambda partition: SchedulerHandler(),
        store=RocksStores(settings.state_dir / "scheduler" / settings.instance),
        view=None,
        clock=clock,
        observer=context.observer,
        instance=settings.instance,
    )

    async def stamp(output: Output) -> int:
        return (await producer.write([output]))[0].timestamp

    ticker = Ticker(clock, stamp)
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    await ticker.first(context.stop)
    context.health.add("clock", lambda: "the wall clock jumped, unconfirmed" if clock.is_doubted else None)
    context.health.add("timers", processor.ready)
    return {"clock": ticker.run, "timers": processor.run}
