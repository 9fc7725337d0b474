"""The orchestrator's composition: one transactional processor over its three inputs."""

from collections.abc import Mapping

from millrace_kafka.client import Cluster
from millrace_kafka.rocks import RocksStores
from millrace_kafka.transactional import TransactionalProcessor
from millrace_orchestrator.handlers import INPUTS, READ_BACK, OrchestratorHandler
from millrace_orchestrator.settings import OrchestratorSettings
from millrace_runtime.service import Context, Worker


async def wire(settings: OrchestratorSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Plans travel with their runs, so no control view is followed: any stamp may be handled at once."""
    cluster = Cluster(
        settings.kafka, settings.namespace, f"millrace-orchestrator-{settings.instance}", settings.security
    )
    processor = TransactionalProcessor(
        cluster,
        group="orchestrator",
        inputs=INPUTS,
        changelog="orchestrator-changelog",
        read_back=READ_BACK,
        handler=lambda partition: OrchestratorHandler(),
        store=RocksStores(settings.state_dir / "orchestrator" / settings.instance),
        view=None,
        clock=context.clock,
        observer=context.observer,
        instance=settings.instance,
    )
    context.health.add("runs", processor.ready)
    return {"runs": processor.run}
