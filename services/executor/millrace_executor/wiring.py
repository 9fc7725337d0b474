"""The executor's composition: the control view that its actions and credentials follow, the door outward, one
producer, its lanes."""

from collections.abc import Mapping

from millrace_core import egress
from millrace_core.keyring import KeyRing
from millrace_executor.actions import Actions
from millrace_executor.credentials import Credentials
from millrace_executor.nodes import NODES, TOLD
from millrace_executor.ports import Tools
from millrace_executor.settings import ExecutorSettings
from millrace_executor.worker import Executor
from millrace_kafka.client import Cluster
from millrace_kafka.control import ControlView
from millrace_kafka.groups import GROUPS
from millrace_kafka.lanes import Lanes
from millrace_kafka.producer import PlainProducer
from millrace_runtime import metric_defs
from millrace_runtime.egress import Egress
from millrace_runtime.metrics import Metrics
from millrace_runtime.service import Context, Worker

GROUP = "executor"


async def wire(settings: ExecutorSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. A step carries all that its attempt needs but secrets: those are looked up in the view when it is made,
    as new as the one that asked for it."""
    cluster = Cluster(settings.kafka, settings.namespace, f"millrace-executor-{settings.instance}", settings.security)
    allow = egress.networks(settings.egress_allow)
    producer = PlainProducer(cluster, observer=context.observer)
    door = Egress(allow=allow)
    ring = KeyRing.parse(settings.key_ring.get_secret_value())

    async def refresh() -> None:
        await view.passed(await view.end())

    actions, credentials = Actions(ring), Credentials(ring, refresh)
    view = ControlView(
        cluster,
        followers={"action": actions, "credential": credentials},
        clock=context.clock,
        observer=context.observer,
    )
    tools = Tools(door, context.clock, allow, registry=actions, credentials=credentials)
    executor = Executor(nodes=NODES, tools=tools, meter=Counted(context.metrics), told=TOLD)
    lanes = Lanes(
        cluster,
        group=GROUP,
        topics=GROUPS[GROUP],
        lane=executor.lane,
        work=executor.work,
        producer=producer,
        observer=context.observer,
        view=view,
        clock=context.clock,
        instance=settings.instance,
        on_dead_letter=executor.parked,
    )
    context.stack.push_async_callback(door.close)
    context.stack.push_async_callback(producer.stop)
    await producer.start()
    context.stack.push_async_callback(view.stop)
    await view.start()
    context.health.add("control", view.ready)
    context.health.add("steps", lanes.ready)
    context.metrics.watch(metric_defs.CONTROL_AGE_SECONDS, view.fresh_age_s)
    context.metrics.watch(metric_defs.CONTROL_POSITION, lambda: view.position)
    return {"control": view.run, "steps": lanes.run}


class Counted:
    """Attempts as metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._attempts = metrics.counter(metric_defs.EXECUTOR_ATTEMPTS)
        self._seconds = metrics.histogram(metric_defs.EXECUTOR_ATTEMPT_SECONDS)

    def attempted(self, type: str, outcome: str, seconds: float) -> None:
        self._attempts.labels(type, outcome).inc()
        self._seconds.labels(type).observe(seconds)
