"""Where the replicas of one partition lie: moved through the broker's own protocol."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest

from millrace_kafka.admin import topic_config
from millrace_kafka.client import Cluster
from millrace_kafka.topics import CATALOGUE
from tests.support.topic_configs import configure
from tests.support.waiting import eventually

MOVE_S_MAX = 30_000


@asynccontextmanager
async def alone_on(
    cluster: Cluster, name: str, partition: int, node: int
) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """As long as the block this broker has the only replica of that partition, and one is enough for its topic. Yields
    what tells its leader, -1 when there is none."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        replicas = (await _partition(admin, cluster.topic(name), partition))["replicas"]
        as_created = topic_config(CATALOGUE[name], replication=len(replicas))
        await configure(admin, cluster.topic(name), {**as_created, "min.insync.replicas": "1"})
        await _move(admin, cluster.topic(name), partition, [node])

        async def leader() -> int:
            return int((await _partition(admin, cluster.topic(name), partition))["leader"])

        try:
            yield leader
        finally:
            await _move(admin, cluster.topic(name), partition, replicas)
            await configure(admin, cluster.topic(name), as_created)
    finally:
        await admin.close()


async def _partition(admin: AIOKafkaAdminClient, topic: str, partition: int) -> Mapping[str, Any]:
    # It asks any broker, also one that is dead.
    [described] = await eventually(lambda: admin.describe_topics([topic]), what=f"what {topic} looks like")
    return next(each for each in described["partitions"] if each["partition"] == partition)


async def _move(admin: AIOKafkaAdminClient, topic: str, partition: int, replicas: Sequence[int]) -> None:
    moved = AlterPartitionReassignmentsRequest(MOVE_S_MAX, [(topic, [(partition, list(replicas), {})], {})], {})
    answer = await admin._send_to_controller(moved)
    assert answer.error_code == 0, answer
    assert all(code == 0 for _, parts, _ in answer.responses for _, code, *_ in parts), answer

    async def has_moved() -> bool:
        now = await _partition(admin, topic, partition)
        return sorted(now["isr"]) == sorted(now["replicas"]) == sorted(replicas) and now["leader"] in replicas

    await eventually(
        has_moved, timeout_s=MOVE_S_MAX / 1000, what=f"partition {partition} of {topic} lies on {replicas}"
    )
