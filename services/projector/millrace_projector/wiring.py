"""The composition root: what the projector is made of."""

import gc
import math
from collections.abc import Mapping, Sequence
from functools import partial

from structlog.typing import FilteringBoundLogger

from millrace_core import limits
from millrace_core.event import iso_of
from millrace_kafka.client import Cluster
from millrace_kafka.positioned import PositionedConsumer
from millrace_kafka.producer import PlainProducer
from millrace_projector.batches import Batches
from millrace_projector.closing import Closing
from millrace_projector.handlers import TOPICS
from millrace_projector.keeping import Keeper, Seen
from millrace_projector.processor import Projector
from millrace_projector.reconciler import Balance, Reconciler, settled
from millrace_projector.settings import ProjectorSettings
from millrace_runtime import metric_defs
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker
from millrace_store.pool import connect
from millrace_store.projection import Projection

GROUP = "projector"
# A batch's rows live until it is stored and hold no cycles: with Python's own threshold of 700 the collector walks them
# again and again for nothing, a tenth to a third of the projector's time.
GC_THRESHOLDS = (50_000, 20, 50)


class Meters:
    """What was written, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._rows = metrics.counter(metric_defs.PROJECTOR_ROWS)
        self._seconds = metrics.histogram(metric_defs.PROJECTOR_COMMIT_SECONDS)
        self._age = metrics.gauge(metric_defs.PROJECTOR_POSITION_AGE_SECONDS)

    def wrote(self, table: str, rows: int) -> None:
        self._rows.labels(table).inc(rows)

    def committed(self, seconds: float) -> None:
        self._seconds.observe(seconds)

    def age(self, topic: str, partition: int, seconds: float) -> None:
        self._age.labels(topic, str(partition)).set(seconds)


class Days:
    """What the keeper sees, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._days = metrics.gauge(metric_defs.PROJECTOR_DAYS)
        self._oldest = metrics.gauge(metric_defs.PROJECTOR_OLDEST_DAY_AGE_SECONDS)
        self._failures = metrics.counter(metric_defs.PROJECTOR_DAY_FAILURES)

    def seen(self, days: Seen) -> None:
        self._oldest.set(days.oldest_age_s)
        for state, count in (("kept", days.kept), ("ahead", days.ahead), ("due", days.due)):
            self._days.labels(state).set(count)

    def failed(self, what: str) -> None:
        self._failures.labels(what).inc()


class Balances:
    """What was counted, as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._unaccounted = metrics.gauge(metric_defs.UNACCOUNTED)
        self._undecided = metrics.gauge(metric_defs.UNDECIDED_EVENTS)
        self._oldest = metrics.gauge(metric_defs.OLDEST_UNFINISHED_AGE_SECONDS)
        self._unaccounted.set(math.nan)

    def found(self, balance: Balance) -> None:
        self._unaccounted.set(balance.unaccounted)
        for partition, count in balance.undecided.items():
            self._undecided.labels(str(partition)).set(count)
        for stage, age_s in balance.oldest_age_s.items():
            self._oldest.labels(stage).set(age_s)


class Receipts:
    """How the receipt chain stands, as metrics and log lines."""

    def __init__(self, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._contradictions = metrics.gauge(metric_defs.RECEIPT_CONTRADICTIONS)
        self._log = log

    def closed(self, day: int, accounts: int, facts: int) -> None:
        self._log.info("receipts.day_closed", day=iso_of(day), accounts=accounts, facts=facts)

    def contradicted(self, account_days: Sequence[tuple[str, int]]) -> None:
        self._contradictions.set(len(account_days))
        for account, day in account_days:
            self._log.error("receipts.contradicted", account=account, day=iso_of(day))

    def lost(self, day: int) -> None:
        self._log.error("receipts.day_lost", day=iso_of(day), reason="the log has lost facts of it")

    def failed(self, reason: str) -> None:
        self._log.warning("receipts.not_closed", reason=reason)


async def wire(settings: ProjectorSettings, context: Context) -> Mapping[str, Worker]:
    """Build the service; nothing reads before its worker runs."""
    gc.set_threshold(*GC_THRESHOLDS)
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-projector-{settings.instance}", settings.security)
    producer = PlainProducer(cluster, observer=context.observer)
    await producer.start()
    context.stack.push_async_callback(producer.stop)
    projection, meters = Projection(), Meters(context.metrics)
    projector = Projector(
        connect=partial(connect, settings.postgres.get_secret_value(), name="millrace projector"),
        consumer=partial(
            PositionedConsumer, cluster, group=GROUP, topics=TOPICS, instance=f"projector-{settings.instance}"
        ),
        projection=projection,
        batches=Batches(projection, letters=producer, observer=context.observer, told=meters, clock=context.clock),
        observer=context.observer,
        told=meters,
        clock=context.clock,
        gather_s=settings.gather_s,
    )
    reconciler = Reconciler(
        connect=partial(connect, settings.postgres.get_secret_value(), name="millrace projector, counting"),
        settled=partial(settled, cluster),
        found=Balances(context.metrics).found,
        clock=context.clock,
        log=context.log,
    )
    days = Days(context.metrics)
    keeper = Keeper(
        connect=partial(
            connect,
            settings.postgres.get_secret_value(),
            name="millrace projector, days",
            statement_s=limits.DAY_STATEMENT_S_MAX,
        ),
        is_behind=lambda: projector.is_behind,
        seen=days.seen,
        failed=days.failed,
        clock=context.clock,
        log=context.log,
    )
    closing = Closing(
        connect=partial(
            connect,
            settings.postgres.get_secret_value(),
            name="millrace projector, receipts",
            statement_s=0,
            idle_s=limits.RECEIPT_SESSION_S,
        ),
        cluster=cluster,
        log=producer,
        told=Receipts(context.metrics, context.log),
        clock=context.clock,
    )
    context.metrics.watch(metric_defs.UNACCOUNTED_AGE_SECONDS, reconciler.age_s)
    context.metrics.watch(metric_defs.RECEIPT_AGE_SECONDS, closing.age_s)
    context.health.add("projector", projector.ready)
    return {
        "projector": projector.run,
        "reconciler": reconciler.run,
        "keeper": keeper.run,
        "closing": closing.run,
    }
