"""The orchestrator's composition: one transactional processor over its three inputs."""

from collections.abc import Mapping

from millrace_core.errors import Retry
from millrace_kafka.admin import Admin
from millrace_kafka.client import Cluster
from millrace_kafka.rocks import RocksStores
from millrace_kafka.transactional import TransactionalProcessor
from millrace_orchestrator.handlers import COMMANDS, INPUTS, READ_BACK, OrchestratorHandler
from millrace_orchestrator.settings import OrchestratorSettings
from millrace_orchestrator.shares import Shares, share_of
from millrace_runtime.service import Context, Worker


async def wire(settings: OrchestratorSettings, context: Context) -> Mapping[str, Worker]:
    """Build it. Plans travel with their runs, so no control view is followed: any stamp may be handled at once."""
    cluster = Cluster(
        settings.kafka, settings.namespace, f"millrace-orchestrator-{settings.instance}", settings.security
    )
    share = share_of(await _partitions(cluster))
    processor = TransactionalProcessor(
        cluster,
        group="orchestrator",
        inputs=INPUTS,
        changelog="orchestrator-changelog",
        read_back=READ_BACK,
        handler=lambda partition: OrchestratorHandler(shares=Shares(released_max=share)),
        store=RocksStores(settings.state_dir / "orchestrator" / settings.instance),
        view=None,
        clock=context.clock,
        observer=context.observer,
        instance=settings.instance,
    )
    context.health.add("runs", processor.ready)
    return {"runs": processor.run}


async def _partitions(cluster: Cluster) -> int:
    """How many there are, for good: counts never change in place."""
    async with Admin(cluster) as admin:
        info = (await admin.topics([COMMANDS])).get(COMMANDS)
    if info is None:
        raise Retry(f"{COMMANDS} does not exist: create the topics first (millrace topics)")
    return info.partitions
