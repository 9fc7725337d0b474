"""Positions of consumer groups, moved without their services."""

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from millrace_kafka.client import Cluster
from millrace_kafka.groups import GROUPS
from millrace_kafka.reader import Reader


async def everyone_has_read(cluster: Cluster) -> None:
    """Every group's position at the end of its topics: what is not there now is lost."""
    async with Reader(cluster) as reader:
        for group, topics in GROUPS.items():
            ends = await reader.ends(await reader.partitions(topics))
            consumer = AIOKafkaConsumer(
                bootstrap_servers=cluster.bootstrap, group_id=cluster.group(group), enable_auto_commit=False
            )
            await consumer.start()
            try:
                parts = [TopicPartition(cluster.topic(topic), number) for topic, number in ends]
                consumer.assign(parts)
                await consumer.commit(
                    {part: OffsetAndMetadata(end, "") for part, end in zip(parts, ends.values(), strict=True)}
                )
            finally:
                await consumer.stop()
