"""A broker that takes less than the catalogue says."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from millrace_kafka.admin import topic_config
from millrace_kafka.client import Cluster
from millrace_kafka.topics import CATALOGUE


async def configure(admin: AIOKafkaAdminClient, topic: str, config: Mapping[str, str]) -> None:
    """Give a topic, by its full name, this configuration and no other."""
    [answer] = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(config))])
    assert all(code == 0 for code, *_ in answer.resources), answer


@asynccontextmanager
async def stricter(cluster: Cluster, name: str, bytes_max: int) -> AsyncIterator[None]:
    """As long as the block a topic of one replica takes no batch larger than this; from a moment after the broker has
    answered on."""
    admin, as_created = (
        AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap),
        topic_config(CATALOGUE[name], replication=1),
    )
    await admin.start()
    try:
        await configure(admin, cluster.topic(name), {**as_created, "max.message.bytes": str(bytes_max)})
        try:
            yield
        finally:
            await configure(admin, cluster.topic(name), as_created)
    finally:
        await admin.close()
