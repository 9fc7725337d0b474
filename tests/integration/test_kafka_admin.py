"""Topics and first positions on a real broker."""

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from millrace_core.errors import Fatal
from millrace_core.record import Output
from millrace_kafka.admin import Admin, create_topics, topic_config
from millrace_kafka.client import Cluster
from millrace_kafka.groups import GROUPS
from millrace_kafka.topics import CATALOGUE
from tests.support.processing import producing
from tests.support.waiting import eventually


async def test_every_topic_is_as_the_catalogue_says(cluster: Cluster) -> None:
    assert set(await create_topics(cluster, partitions=4)) == set(CATALOGUE)
    async with Admin(cluster) as admin:
        found = await admin.topics()
        configs = await admin.configs(CATALOGUE)
    assert set(found) == set(CATALOGUE)
    for name, topic in CATALOGUE.items():
        assert found[name].partitions == (topic.partitions or 4), name
        for key, value in topic_config(topic, replication=1).items():
            assert configs[name][key] == value, (name, key)


async def test_made_again_nothing_changes_and_a_position_is_never_set_back(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=2)
    async with Admin(cluster) as admin:
        before = await admin.committed("matcher", GROUPS["matcher"])
        assert {at.offset for at in before.values()} == {0}
    assert await create_topics(cluster, partitions=2) == []


async def test_every_group_has_a_first_position_on_every_partition(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=3)
    async with Admin(cluster) as admin:
        for group, topics in GROUPS.items():
            positions = await admin.committed(group, topics)
            assert {part: at.offset for part, at in positions.items()} == {(t, n): 0 for t in topics for n in range(3)}


async def test_another_partition_count_is_refused(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=2)
    with pytest.raises(Fatal, match="never changes in place"):
        await create_topics(cluster, partitions=3)


async def test_a_topic_made_anew_has_another_id(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=1)
    async with Admin(cluster) as admin:
        before = (await admin.topics(["events"]))["events"].id
    client = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await client.start()
    await client.delete_topics([cluster.topic("events")])
    await client.close()
    async with Admin(cluster) as admin:

        async def is_gone() -> bool:
            return not await admin.topics(["events"])

        await eventually(is_gone)
    await create_topics(cluster, partitions=1)
    async with Admin(cluster) as admin:
        assert (await admin.topics(["events"]))["events"].id not in ("", before)


async def test_ends_and_lag_count_records(cluster: Cluster) -> None:
    await create_topics(cluster, partitions=1)
    async with producing(cluster) as producer:
        await producer.write([Output("events", b"k", b"v")] * 7)
    async with Admin(cluster) as admin:
        part = TopicPartition(cluster.topic("events"), 0)
        assert await admin.ends([part]) == {part: 7}
        assert [(lag.position, lag.end, lag.records) for lag in await admin.lag("matcher")] == [(0, 7, 7)]
