"""The matcher's composition: the control view its index follows, one producer, one idempotent processor."""

from collections import Counter
from collections.abc import Mapping

from millrace_core.handling import Handled
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.idempotent import IdempotentProcessor
from millrace_kafka.producer import PlainProducer
from millrace_matcher.handlers import MatcherHandler, parked
from millrace_matcher.settings import MatcherSettings
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker


async def wire(settings: MatcherSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Returns when the view holds what was on `control`: no event is matched by less."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-matcher-{settings.instance}", settings.security)
    handler = MatcherHandler(told=lambda *batch: counted.batch(*batch))
    counted = Counted(context.metrics, handler)
    view = ControlView(cluster, followers=handler.followers, clock=context.clock, observer=context.observer)
    producer = PlainProducer(cluster, observer=context.observer)
    processor = IdempotentProcessor(
        cluster,
        group="matcher",
        topic="events",
        changelog="matcher-changelog",
        handler=handler,
        view=view,
        producer=producer,
        observer=context.observer,
        clock=context.clock,
        instance=settings.instance,
        on_dead_letter=parked,
    )
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    context.stack.push_async_callback(view.stop)
    await view.start()

    context.health.add("control", view.ready)
    context.health.add("events", processor.ready)
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    context.metrics.watch(metric_defs.MATCHER_SUBSCRIPTIONS, lambda: len(handler.subscriptions))
    return {"control": view.run, "events": processor.run}


class Counted:
    """What was decided, as metrics."""

    def __init__(self, metrics: Metrics, handler: MatcherHandler) -> None:
        self._events = metrics.counter(metric_defs.MATCHER_EVENTS)
        self._outputs = metrics.counter(metric_defs.MATCHER_OUTPUTS)
        self._keys = metrics.gauge(metric_defs.MATCHER_UNIQUE_KEYS)
        self._handler = handler

    def batch(self, partition: int, outcomes: Mapping[str, int], handled: Handled) -> None:
        for outcome, count in outcomes.items():
            self._events.labels(outcome).inc(count)
        for topic, count in Counter(output.topic for output in handled.outputs).items():
            self._outputs.labels(topic).inc(count)
        self._keys.labels(str(partition)).set(self._handler.unique_keys.size(partition))
