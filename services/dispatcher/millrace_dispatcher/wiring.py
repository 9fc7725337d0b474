"""The dispatcher's composition: the control view its endpoints follow, a clock that the broker confirms, the door
outward, one producer, its lanes."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

from prometheus_client import Counter as PrometheusCounter

from millrace_core import egress, limits
from millrace_core.clock import Clock
from millrace_core.keyring import KeyRing
from millrace_core.steady_clock import SteadyClock
from millrace_dispatcher.claims import Claims
from millrace_dispatcher.endpoints import Endpoints
from millrace_dispatcher.outputs import OVERFLOW
from millrace_dispatcher.pausing import Pausing, State
from millrace_dispatcher.rates import Key, Rates
from millrace_dispatcher.settings import DispatcherSettings
from millrace_dispatcher.shares import Shares
from millrace_dispatcher.worker import Dispatcher
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.groups import GROUPS
from millrace_kafka.lanes import Lanes
from millrace_kafka.producer import PlainProducer
from millrace_kafka.ticker import Ticker
from millrace_runtime import metric_defs
from millrace_runtime.egress import Egress
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker

GROUP = "dispatcher"
# Their writers write at least once; retries come from the scheduler, which writes each once.
CLAIMED = ("deliveries", "deliveries-overflow")
STATES: tuple[State, ...] = ("closed", "half_open", "open")


async def wire(settings: DispatcherSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Returns when the view holds what was on `control` and the broker has confirmed the time: no delivery is
    made to an endpoint as it was, or signed with a time that its receiver refuses."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-dispatcher-{settings.instance}", settings.security)
    clock = SteadyClock(context.clock)
    allow = egress.networks(settings.egress_allow)
    pausing, rates = Pausing(), Rates()

    def changed(endpoint: Key) -> None:
        pausing.forget(endpoint)
        rates.forget(endpoint)

    endpoints = Endpoints(
        KeyRing.parse(settings.key_ring.get_secret_value()),
        user_agent=f"Millrace/{version('millrace-dispatcher')}",
        allow=allow,
        on_change=changed,
    )
    view = ControlView(cluster, followers={"endpoint": endpoints}, clock=context.clock, observer=context.observer)
    producer = PlainProducer(
        cluster,
        observer=context.observer,
        gather_s=limits.OUTCOME_GATHER_S,
        gather_records=limits.OUTCOME_GATHER_RECORDS,
    )
    door = Egress(allow=allow)
    dispatcher = Dispatcher(
        endpoints=endpoints,
        pausing=pausing,
        claims=Claims(),
        shares=Shares(),
        rates=rates,
        sender=door,
        clock=clock,
        meter=Counted(context.metrics),
    )
    lanes = Lanes(
        cluster,
        group=GROUP,
        topics=GROUPS[GROUP],
        lane=dispatcher.lane,
        relane=dispatcher.relane,
        hold=dispatcher.hold,
        work=dispatcher.work,
        producer=producer,
        observer=context.observer,
        view=view,
        clock=clock,
        instance=settings.instance,
        on_dead_letter=dispatcher.parked,
        memory=dispatcher,
        read_back=CLAIMED,
        topic_buffered_max={OVERFLOW: limits.OVERFLOW_BUFFERED_MAX},
    )
    ticker = Ticker(clock, producer.write)
    context.stack.push_async_callback(door.close)
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    context.stack.push_async_callback(view.stop)
    await view.start()
    await ticker.first(context.stop)

    context.health.add("clock", ticker.ready)
    context.health.add("control", view.ready)
    context.health.add("deliveries", lanes.ready)
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    context.metrics.watch(metric_defs.DISPATCHER_RATE_WAITING, lambda: rates.waiting)
    _watch_breakers(context.metrics, pausing, clock)
    return {"clock": ticker.run, "control": view.run, "deliveries": lanes.run}


def _watch_breakers(metrics: Metrics, pausing: Pausing, clock: Clock) -> None:
    def count(state: State) -> float:
        return Counter(pausing.states(clock.now_ms()))[state]

    for state in STATES:
        metrics.watch(metric_defs.DISPATCHER_BREAKERS, partial(count, state), state)


class Counted:
    """Attempts as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._attempts = metrics.counter(metric_defs.DISPATCHER_ATTEMPTS)
        self._seconds = metrics.histogram(metric_defs.DISPATCHER_ATTEMPT_SECONDS)
        self._postponed = metrics.counter(metric_defs.DISPATCHER_POSTPONED)
        self._by_outcome: dict[str, PrometheusCounter] = {}

    def attempted(self, outcome: str, seconds: float) -> None:
        counter = self._by_outcome.get(outcome)
        if counter is None:
            counter = self._by_outcome[outcome] = self._attempts.labels(outcome)
        counter.inc()
        if seconds:
            self._seconds.observe(seconds)

    def postponed(self) -> None:
        self._postponed.inc()
